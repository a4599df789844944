import { hash } from 'node:crypto'
import { Fault } from '#base/faults'

const pattern = /^[0-9a-f]{64}$/

/** Whether a text is the name of a blob or a file: a SHA-256 in lower-case hex. */
export function isId(text: unknown): text is string {
  return typeof text === 'string' && pattern.test(text)
}

/** Reads an id out of foreign JSON. */
export function takeId(value: unknown, what: string): string {
  if (isId(value)) return value
  throw new Fault('corrupt', `read ${what}: ${JSON.stringify(value)?.slice(0, 80)} is no id`)
}

export function sha256(bytes: Uint8Array): Buffer {
  return hash('sha256', bytes, 'buffer')
}

export function sha256Hex(bytes: Uint8Array): string {
  return hash('sha256', bytes, 'hex')
}
