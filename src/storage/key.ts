import { Fault } from '#base/faults'

const partsPattern = /^[A-Za-z0-9._=+-]+(?:\/[A-Za-z0-9._=+-]+)*$/
const prefixPattern = /^(?:[A-Za-z0-9._=+-]+\/?)*$/
/**
 * S3's limit on a whole key is 1,024 bytes, a file system's on a part 255; a vault's prefix comes
 * on top.
 */
const keyBytesMax = 800
const partBytesMax = 255

/** Names that a store uses for itself: never keys, never listed. */
export const reservedName = '.redoubt-'

/**
 * Whether a name found in a store can be a key at all; foreign files beside ours are not listed.
 */
export function isKey(text: string): boolean {
  if (text.length > keyBytesMax || !partsPattern.test(text)) return false
  return text.split('/').every(isKeyPart)
}

/** Throws `usage` for what cannot be a key: a path must not be able to leave its store. */
export function checkKey(key: string): void {
  if (!isKey(key))
    throw new Fault('usage', `use object key ${JSON.stringify(key)}: not a valid key`)
}

/** Throws `usage` for what no key can start with. */
export function checkPrefix(prefix: string): void {
  if (prefix !== '' && (!prefixPattern.test(prefix) || prefix.split('/').some(isDots))) {
    throw new Fault('usage', `list object prefix ${JSON.stringify(prefix)}: not a valid prefix`)
  }
}

/**
 * Whether `[start, end)` lies in an object of that size; throws `corrupt` when the object is too
 * short.
 */
export function checkRange(
  what: string,
  range: { readonly start: number; readonly end: number },
  sizeBytes: number,
): void {
  const { start, end } = range
  if (start < 0 || end < start) throw new Fault('usage', `read ${what}: no range ${start}-${end}`)
  if (end > sizeBytes) {
    throw new Fault('corrupt', `read ${what}: wanted bytes up to ${end}, object has ${sizeBytes}`)
  }
}

function isKeyPart(part: string): boolean {
  return part.length <= partBytesMax && !isDots(part) && !part.startsWith(reservedName)
}

function isDots(part: string): boolean {
  return part === '.' || part === '..'
}
