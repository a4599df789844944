import { Fault } from '#base/faults'

/** Foreign JSON, read with care: every accessor throws `corrupt` when the value is not of its kind. */
export type JsonObject = Readonly<Record<string, unknown>>

export function parseJson(text: string, what: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new Fault('corrupt', `read ${what}: no valid JSON`, { cause })
  }
}

export function takeObject(value: unknown, what: string): JsonObject {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return value as JsonObject
  }
  throw new Fault('corrupt', `read ${what}: a JSON object was expected`)
}

/** A list; Go writes an empty one as null at times. */
export function takeList(value: unknown, what: string): readonly unknown[] {
  if (Array.isArray(value)) return value
  if (value === null || value === undefined) return []
  throw new Fault('corrupt', `read ${what}: a JSON list was expected`)
}

export function takeText(value: unknown, what: string): string {
  if (typeof value === 'string') return value
  throw new Fault('corrupt', `read ${what}: a JSON string was expected`)
}

export function takeInteger(value: unknown, max: number, what: string): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value <= max) {
    return value
  }
  throw new Fault(
    'corrupt',
    `read ${what}: ${String(value).slice(0, 40)} is not within 0 to ${max}`,
  )
}

/** Bytes in base64, of exactly `size` when given. */
export function takeBytes(value: unknown, what: string, size?: number): Buffer {
  const text = takeText(value, what)
  const bytes = Buffer.from(text, 'base64')
  if (size === undefined ? bytes.toString('base64') === text : bytes.length === size) return bytes
  throw new Fault('corrupt', `read ${what}: no base64 of ${size ?? 'some'} bytes`)
}
