import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto'
import { Fault } from '#base/faults'

/** One entry of an age header: a wrapped file key, or anything that readers of other kinds skip. */
export type Stanza = {
  readonly type: string
  readonly args: readonly string[]
  readonly body: Buffer
}

export type Header = {
  readonly stanzas: readonly Stanza[]
  /** The header's bytes up to and with `---`: what its MAC is over. */
  readonly signed: Buffer
  readonly mac: Buffer
  /** Bytes of the whole header, its last line end included. */
  readonly sizeBytes: number
}

/** No header that is accepted is longer: the reader stops looking for its end there. */
export const headerBytesMax = 64 * 1024

const versionLine = 'age-encryption.org/v1'
const columns = 64
const macSize = 32
const argumentPattern = /^[\x21-\x7e]+$/

/** Writes the header of a file; the format stands at https://age-encryption.org/v1. */
export function formatHeader(stanzas: readonly Stanza[], fileKey: Buffer): Buffer {
  const lines = [versionLine]
  for (const { type, args, body } of stanzas) {
    lines.push(['->', type, ...args].join(' '), ...wrap(toBase64(body)))
  }
  const signed = Buffer.from(`${lines.join('\n')}\n---`, 'latin1')
  return Buffer.concat([signed, Buffer.from(` ${toBase64(headerMac(fileKey, signed))}\n`)])
}

/**
 * Reads the header at the start of `bytes`. Returns undefined while its end is not there yet.
 * Anything that the format does not allow is a `corrupt` Fault.
 */
export function parseHeader(bytes: Buffer): Header | undefined {
  const lines = new Lines(bytes)
  if (lines.next() !== versionLine) {
    if (lines.open && versionLine.startsWith(bytes.subarray(0, 21).toString('latin1')))
      return undefined
    throw corrupt('the first line is not that of age v1')
  }
  const stanzas: Stanza[] = []
  for (let line = lines.next(); line !== undefined; line = lines.next()) {
    if (line.startsWith('--- ')) {
      if (stanzas.length === 0) throw corrupt('it has no stanza')
      const mac = fromBase64(line.slice(4))
      if (mac.length !== macSize) throw corrupt('the MAC has the wrong size')
      const signed = bytes.subarray(0, lines.before + 3)
      return { stanzas, signed, mac, sizeBytes: lines.pos }
    }
    const stanza = readStanza(line, lines)
    if (!stanza) break
    stanzas.push(stanza)
  }
  if (bytes.length >= headerBytesMax) throw corrupt(`it is longer than ${headerBytesMax} bytes`)
  return undefined
}

/** Compares the header's MAC with the one that the file key makes. */
export function checkMac(header: Header, fileKey: Buffer): void {
  if (!timingSafeEqual(header.mac, headerMac(fileKey, header.signed))) {
    throw corrupt('its MAC does not match')
  }
}

export function corrupt(why: string): Fault {
  return new Fault('corrupt', `read an age header: ${why}`)
}

/** Base64 without padding, in its one canonical spelling. */
export function toBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    .toString('base64')
    .replace(/=+$/, '')
}

export function fromBase64(text: string): Buffer {
  const bytes = Buffer.from(text, 'base64')
  // node skips what is no base64 and takes the URL alphabet and loose bits: only the round trip shows that.
  if (toBase64(bytes) !== text) throw corrupt('a field is not canonical base64')
  return bytes
}

function headerMac(fileKey: Buffer, signed: Buffer): Buffer {
  const key = Buffer.from(hkdfSync('sha256', fileKey, '', 'header', macSize))
  return createHmac('sha256', key).update(signed).digest()
}

function readStanza(line: string, lines: Lines): Stanza | undefined {
  const [arrow, type, ...args] = line.split(' ')
  if (arrow !== '->' || type === undefined) throw corrupt('a line starts no stanza')
  if (![type, ...args].every((arg) => argumentPattern.test(arg))) {
    throw corrupt('a stanza has an argument that is empty or not printable')
  }
  const body: Buffer[] = []
  for (;;) {
    const text = lines.next()
    if (text === undefined) return undefined
    if (text.length > columns) throw corrupt('a body line is too long')
    body.push(fromBase64(text))
    if (text.length < columns) return { type, args, body: Buffer.concat(body) }
  }
}

/** Full lines of 64 columns, then a shorter one, an empty one if need be. */
function wrap(text: string): string[] {
  const lines = text.match(/.{1,64}/g) ?? []
  return lines.at(-1)?.length === columns || lines.length === 0 ? [...lines, ''] : lines
}

class Lines {
  readonly #bytes: Buffer
  pos = 0
  /** Where the line read last begins. */
  before = 0
  /** The end of the bytes was met before the end of a line. */
  open = false

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  next(): string | undefined {
    const end = this.#bytes.subarray(0, headerBytesMax).indexOf(10, this.pos)
    this.open = end < 0
    if (end < 0) return undefined
    this.before = this.pos
    this.pos = end + 1
    return this.#bytes.toString('latin1', this.before, end)
  }
}
