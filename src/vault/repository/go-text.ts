/**
 * Text as Go's standard library writes it: restic's trees are hashed over exactly these bytes
 * (https://pkg.go.dev/strconv#Quote, https://pkg.go.dev/encoding/json#Marshal, https://pkg.go.dev/time#RFC3339Nano).
 */

/**
 * Code points that got their meaning after Unicode 15, pairs of first and last: Go 1.21 to 1.26 hold them to
 * be unprintable, and so escape them in names.
 */
const youngerThanGo = [
  0x88f, 0x88f, 0x897, 0x897, 0xc5c, 0xc5c, 0xcdc, 0xcdc, 0x1acf, 0x1add, 0x1ae0, 0x1aeb, 0x1b4e,
  0x1b4f, 0x1b7f, 0x1b7f, 0x1c89, 0x1c8a, 0x20c1, 0x20c1, 0x2427, 0x2429, 0x2b96, 0x2b96, 0x2ffc,
  0x2fff, 0x31e4, 0x31e5, 0x31ef, 0x31ef, 0xa7cb, 0xa7cf, 0xa7d2, 0xa7d2, 0xa7d4, 0xa7d4, 0xa7da,
  0xa7dc, 0xa7f1, 0xa7f1, 0xfbc3, 0xfbd2, 0xfd90, 0xfd91, 0xfdc8, 0xfdce, 0x105c0, 0x105f3, 0x10940,
  0x10959, 0x10d40, 0x10d65, 0x10d69, 0x10d85, 0x10d8e, 0x10d8f, 0x10ec2, 0x10ec7, 0x10ed0, 0x10ed8,
  0x10efa, 0x10efc, 0x11380, 0x11389, 0x1138b, 0x1138b, 0x1138e, 0x1138e, 0x11390, 0x113b5, 0x113b7,
  0x113c0, 0x113c2, 0x113c2, 0x113c5, 0x113c5, 0x113c7, 0x113ca, 0x113cc, 0x113d5, 0x113d7, 0x113d8,
  0x113e1, 0x113e2, 0x116d0, 0x116e3, 0x11b60, 0x11b67, 0x11bc0, 0x11be1, 0x11bf0, 0x11bf9, 0x11db0,
  0x11ddb, 0x11de0, 0x11de9, 0x11f5a, 0x11f5a, 0x13460, 0x143fa, 0x16100, 0x16139, 0x16d40, 0x16d79,
  0x16ea0, 0x16eb8, 0x16ebb, 0x16ed3, 0x16ff2, 0x16ff6, 0x187f8, 0x187ff, 0x18cff, 0x18cff, 0x18d09,
  0x18d1e, 0x18d80, 0x18df2, 0x1cc00, 0x1ccfc, 0x1cd00, 0x1ceb3, 0x1ceba, 0x1ced0, 0x1cee0, 0x1cef0,
  0x1e5d0, 0x1e5fa, 0x1e5ff, 0x1e5ff, 0x1e6c0, 0x1e6de, 0x1e6e0, 0x1e6f5, 0x1e6fe, 0x1e6ff, 0x1f6d8,
  0x1f6d8, 0x1f777, 0x1f77a, 0x1f8b2, 0x1f8bb, 0x1f8c0, 0x1f8c1, 0x1f8d0, 0x1f8d8, 0x1fa54, 0x1fa57,
  0x1fa89, 0x1fa8a, 0x1fa8e, 0x1fa8f, 0x1fabe, 0x1fabe, 0x1fac6, 0x1fac6, 0x1fac8, 0x1fac8, 0x1facd,
  0x1facd, 0x1fadc, 0x1fadc, 0x1fadf, 0x1fadf, 0x1fae9, 0x1faea, 0x1faef, 0x1faef, 0x1fbcb, 0x1fbef,
  0x1fbfa, 0x1fbfa, 0x2b73a, 0x2b73f, 0x2cea2, 0x2cead, 0x2ebf0, 0x2ee5d, 0x323b0, 0x33479,
] as const

const graphic = /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]$/u

/** Whether Go's `strconv.IsPrint` holds the code point to be printable. */
export function isGoPrintable(point: number): boolean {
  if (point < 0x7f) return point >= 0x20
  if (point >= 0xd800 && point < 0xe000) return false
  if (!graphic.test(String.fromCodePoint(point))) return false
  let low = 0
  let high = youngerThanGo.length / 2
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((youngerThanGo[2 * middle + 1] ?? 0) < point) low = middle + 1
    else high = middle
  }
  return (youngerThanGo[2 * low] ?? 0x110000) > point
}

/** Bytes that a JSON string of Go holds as they are: printable ASCII but `"`, `\`, `<`, `>`, `&`. */
const plainInJson = new Uint8Array(256)
for (let byte = 0x20; byte < 0x7f; byte++) plainInJson[byte] = 1
for (const byte of Buffer.from('"\\<>&')) plainInJson[byte] = 0

const shortEscapes: Readonly<Record<number, string>> = {
  7: 'a',
  8: 'b',
  9: 't',
  10: 'n',
  11: 'v',
  12: 'f',
  13: 'r',
  34: '"',
  92: '\\',
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0')
}

/** A file name as `strconv.Quote` writes it, without the quotes around it, then as the inside of a JSON string. */
export function quoteName(name: Buffer): string {
  if (isPlain(name)) return name.toString('latin1')
  let quoted = ''
  for (let at = 0; at < name.length; ) {
    const size = utf8SizeAt(name, at)
    const byte = name[at] ?? 0
    if (size === 0) {
      quoted += `\\x${hex(byte, 2)}`
      at += 1
      continue
    }
    const text = size === 1 ? String.fromCharCode(byte) : name.toString('utf8', at, at + size)
    quoted += quotePoint(text, text.codePointAt(0) ?? 0)
    at += size
  }
  return escapeJson(quoted)
}

function quotePoint(text: string, point: number): string {
  const short = shortEscapes[point]
  if (short !== undefined) return `\\${short}`
  if (isGoPrintable(point)) return text
  if (point < 0x80) return `\\x${hex(point, 2)}`
  return point < 0x10000 ? `\\u${hex(point, 4)}` : `\\U${hex(point, 8)}`
}

function isPlain(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; at++) if (plainInJson[bytes[at] ?? 0] !== 1) return false
  return true
}

/** Length of the well-formed UTF-8 sequence at `at`, 0 where there is none (RFC 3629, section 4). */
function utf8SizeAt(bytes: Buffer, at: number): number {
  const lead = bytes[at] ?? 0
  if (lead < 0x80) return 1
  const size =
    lead >= 0xc2 && lead < 0xe0 ? 2 : lead >= 0xe0 && lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0
  if (lead < 0xc2 || size === 0 || at + size > bytes.length) return 0
  const second = bytes[at + 1] ?? 0
  const low = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80
  const high = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf
  if (second < low || second > high) return 0
  for (let next = at + 2; next < at + size; next++) {
    if (((bytes[next] ?? 0) & 0xc0) !== 0x80) return 0
  }
  return size
}

const needsEscape = /["\\<>&\p{Cc}\u2028\u2029]/u
const toEscape = /["\\<>&\p{Cc}\u2028\u2029]/gu
const jsonEscapes: Readonly<Record<string, string>> = {
  '"': '\\"',
  '\\': '\\\\',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
}

/** The inside of a JSON string as Go's encoder writes it, HTML characters escaped. */
export function escapeJson(text: string): string {
  const sound = text.isWellFormed() ? text : text.toWellFormed()
  if (!needsEscape.test(sound)) return sound
  return sound.replace(toEscape, (char) => {
    const code = char.charCodeAt(0)
    // The upper control characters (U+007F to U+009F) stand for themselves.
    if (code >= 0x7f && code < 0xa0) return char
    return jsonEscapes[char] ?? `\\u${hex(code, 4)}`
  })
}

/** Bytes as the inside of a JSON string: each byte that is no UTF-8 becomes the escape of U+FFFD. */
export function escapeJsonBytes(bytes: Buffer): { readonly text: string; readonly exact: boolean } {
  if (isPlain(bytes)) return { text: bytes.toString('latin1'), exact: true }
  let text = ''
  let exact = true
  let start = 0
  for (let at = 0; at < bytes.length; ) {
    const size = utf8SizeAt(bytes, at)
    if (size === 0) {
      text += `${escapeJson(bytes.toString('utf8', start, at))}\\ufffd`
      exact = false
      start = at + 1
    }
    at += Math.max(1, size)
  }
  return { text: text + escapeJson(bytes.toString('utf8', start, bytes.length)), exact }
}

const quoteEscapes: Readonly<Record<string, number>> = {
  a: 7,
  b: 8,
  t: 9,
  n: 10,
  v: 11,
  f: 12,
  r: 13,
  '"': 34,
  '\\': 92,
}

const escapePattern =
  /\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|([abtnvfr"\\]))/y

/** Reverses `strconv.Quote`, given the text between the quotes; undefined when it is no such text. */
export function unquoteName(quoted: string): Buffer | undefined {
  if (!/["\\\n]/.test(quoted)) return Buffer.from(quoted, 'utf8')
  const parts: Buffer[] = []
  for (let at = 0; at < quoted.length; ) {
    const slash = quoted.indexOf('\\', at)
    const plain = quoted.slice(at, slash < 0 ? quoted.length : slash)
    if (/["\n]/.test(plain)) return undefined
    parts.push(Buffer.from(plain, 'utf8'))
    if (slash < 0) break
    escapePattern.lastIndex = slash
    const match = escapePattern.exec(quoted)
    const part = match ? unescape(match) : undefined
    if (!match || !part) return undefined
    parts.push(part)
    at = slash + match[0].length
  }
  return Buffer.concat(parts)
}

function unescape(match: RegExpExecArray): Buffer | undefined {
  const [, byte, short, long, octal, letter] = match
  if (letter !== undefined) return Buffer.from([quoteEscapes[letter] ?? 0])
  if (byte !== undefined) return Buffer.from([Number.parseInt(byte, 16)])
  if (octal !== undefined) {
    const value = Number.parseInt(octal, 8)
    return value > 255 ? undefined : Buffer.from([value])
  }
  const point = Number.parseInt(short ?? long ?? '', 16)
  const valid = point <= 0x10ffff && (point < 0xd800 || point > 0xdfff)
  return valid ? Buffer.from(String.fromCodePoint(point), 'utf8') : undefined
}

const nsPerSecond = 1_000_000_000n
const secondsPerDay = 86_400
/** 0000-01-01 and the last second of 9999, which is what RFC 3339 can tell. */
const firstSecond = -62_167_219_200
const lastSecond = 253_402_300_799

/** Nanoseconds since 1970 as RFC 3339 in UTC, the fraction without trailing zeros; years clamped to 0 to 9999. */
export function formatTimeNs(ns: bigint): string {
  let fraction = Number(ns % nsPerSecond)
  let second = Number(ns / nsPerSecond)
  if (fraction < 0) {
    fraction += 1e9
    second -= 1
  }
  const base = formatSecond(clampYear(second))
  if (fraction === 0) return `${base}Z`
  let digits = String(fraction).padStart(9, '0')
  let length = 9
  while (digits.charCodeAt(length - 1) === 48) length -= 1
  if (length < 9) digits = digits.slice(0, length)
  return `${base}.${digits}Z`
}

/** The day that was written last: the times of a tree are often of the same one. */
let written = { day: Number.NaN, text: '' }

function formatSecond(second: number): string {
  const day = Math.floor(second / secondsPerDay)
  if (day !== written.day) {
    const text = new Date(day * secondsPerDay * 1000).toISOString().slice(0, 10)
    written = { day, text }
  }
  const rest = second - day * secondsPerDay
  const hours = twoDigits(Math.floor(rest / 3600))
  return `${written.text}T${hours}:${twoDigits(Math.floor(rest / 60) % 60)}:${twoDigits(rest % 60)}`
}

function twoDigits(value: number): string {
  return value < 10 ? `0${value}` : `${value}`
}

function clampYear(second: number): number {
  if (second >= firstSecond && second <= lastSecond) return second
  const date = new Date(second * 1000)
  if (Number.isNaN(date.getTime())) return second < 0 ? firstSecond : lastSecond
  return date.setUTCFullYear(second < 0 ? 0 : 9999) / 1000
}

/** The day that was read last, with its first second. */
let read = { text: '', second: Number.NaN }

function parseDay(text: string): number {
  if (text !== read.text) read = { text, second: Date.parse(`${text}T00:00:00Z`) / 1000 }
  return read.second
}

const timePattern =
  /^(\d{4}-\d\d-\d\d)T([01]\d|2[0-3]):([0-5]\d):([0-5]\d)(?:\.(\d{1,9})\d*)?(Z|([+-])(\d\d):(\d\d))$/

/** Reads an RFC 3339 time; nanoseconds since 1970, undefined when it is none. */
export function parseTimeNs(text: string): bigint | undefined {
  const match = timePattern.exec(text)
  if (!match) return undefined
  const [, day = '', hour, minute, second, fraction = '', zone, sign, hours, minutes] = match
  let seconds = parseDay(day) + Number(hour) * 3600 + Number(minute) * 60 + Number(second)
  if (Number.isNaN(seconds)) return undefined
  if (zone !== 'Z') {
    const offset = Number(hours) * 3600 + Number(minutes) * 60
    seconds -= sign === '-' ? -offset : offset
  }
  return BigInt(seconds) * nsPerSecond + BigInt(Number(fraction.padEnd(9, '0')))
}
