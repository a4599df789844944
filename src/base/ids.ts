import { randomBytes } from 'node:crypto'

/** A random identifier: `bytes` of randomness as lower-case hex. */
export function randomHex(bytes: number): string {
  return randomBytes(bytes).toString('hex')
}
