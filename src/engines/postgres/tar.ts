import { Fault } from '#base/faults'

/** One member of a tar archive. */
export type TarEntry = {
  readonly path: string
  readonly kind: 'file' | 'dir' | 'symlink'
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly mtimeSeconds: number
  readonly sizeBytes: number
  /** Where a symlink points. */
  readonly link: string
}

/** What a reader hands out, in archive order: an entry, then its bytes, then its end. */
export type TarEvent =
  | { readonly kind: 'entry'; readonly entry: TarEntry }
  | { readonly kind: 'bytes'; readonly bytes: Buffer }
  | { readonly kind: 'end' }

const blockBytes = 512
const paxBytesMax = 1 << 20
const pathBytesMax = 4096

/**
 * Reads a tar archive from pieces cut anywhere: ustar with long sizes in base 256 (as the server writes them) and pax
 * path, linkpath and size records. https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html
 */
export class TarReader {
  readonly #what: string
  #head = Buffer.alloc(blockBytes)
  #headFill = 0
  #contentLeft = 0
  #padding = 0
  #inEntry = false
  #pax: { left: number; readonly parts: Buffer[] } | undefined
  #overrides = new Map<string, string>()
  #zeroBlocks = 0

  constructor(what: string) {
    this.#what = what
  }

  /** Takes the next bytes of the archive. Bytes events are views of them. */
  *feed(bytes: Buffer): Generator<TarEvent, void, void> {
    let at = 0
    while (at < bytes.length) {
      if (this.#contentLeft > 0) {
        const take = Math.min(this.#contentLeft, bytes.length - at)
        const view = bytes.subarray(at, at + take)
        at += take
        this.#contentLeft -= take
        yield* this.#content(view)
      } else if (this.#padding > 0) {
        const take = Math.min(this.#padding, bytes.length - at)
        this.#padding -= take
        at += take
      } else {
        const take = Math.min(blockBytes - this.#headFill, bytes.length - at)
        bytes.copy(this.#head, this.#headFill, at, at + take)
        this.#headFill += take
        at += take
        if (this.#headFill === blockBytes) {
          this.#headFill = 0
          yield* this.#header()
        }
      }
    }
  }

  /** Whether the next bytes, so many, are all of the present file, which does not end with them: then they need no `feed`. */
  pass(sizeBytes: number): boolean {
    if (this.#pax || this.#contentLeft <= sizeBytes) return false
    this.#contentLeft -= sizeBytes
    return true
  }

  /** Says that no more comes: an archive cut off in a member is a `protocol` Fault. */
  finish(): void {
    if (this.#contentLeft > 0 || this.#padding > 0 || this.#headFill > 0 || this.#inEntry) {
      throw new Fault('protocol', `read ${this.#what}: the archive is cut off`)
    }
  }

  *#content(view: Buffer): Generator<TarEvent, void, void> {
    if (this.#pax) {
      this.#pax.parts.push(view)
      if (this.#contentLeft === 0) {
        this.#readPax(Buffer.concat(this.#pax.parts))
        this.#pax = undefined
      }
      return
    }
    yield { kind: 'bytes', bytes: view }
    if (this.#contentLeft === 0) {
      this.#inEntry = false
      yield { kind: 'end' }
    }
  }

  *#header(): Generator<TarEvent, void, void> {
    const head = this.#head
    if (head.every((byte) => byte === 0)) {
      this.#zeroBlocks += 1
      return
    }
    if (this.#zeroBlocks > 0) throw new Fault('protocol', `read ${this.#what}: data behind its end`)
    this.#checkSum()
    const type = String.fromCharCode(head[156] ?? 0)
    const size = Number(this.#overrides.get('size') ?? this.#number(124, 12))
    this.#contentLeft = size
    this.#padding = (blockBytes - (size % blockBytes)) % blockBytes
    if (type === 'x' || type === 'g') {
      if (size > paxBytesMax)
        throw new Fault('protocol', `read ${this.#what}: pax of ${size} bytes`)
      this.#pax = size > 0 ? { left: size, parts: [] } : undefined
      return
    }
    const entry = this.#entry(type, size)
    this.#overrides.clear()
    this.#inEntry = true
    yield { kind: 'entry', entry }
    if (size === 0) {
      this.#inEntry = false
      yield { kind: 'end' }
    }
  }

  #entry(type: string, sizeBytes: number): TarEntry {
    const kind = { '0': 'file', '\0': 'file', '5': 'dir', '2': 'symlink' }[type]
    const prefix = this.#text(345, 155)
    const plain = prefix === '' ? this.#text(0, 100) : `${prefix}/${this.#text(0, 100)}`
    const path = cleanPath(this.#overrides.get('path') ?? plain, this.#what)
    if (kind !== 'file' && kind !== 'dir' && kind !== 'symlink') {
      throw new Fault(
        'protocol',
        `read ${this.#what}: '${path}' is of type ${JSON.stringify(type)}`,
      )
    }
    return {
      path,
      kind,
      mode: this.#number(100, 8) & 0o7777,
      uid: this.#number(108, 8),
      gid: this.#number(116, 8),
      mtimeSeconds: this.#number(136, 12),
      sizeBytes,
      link: this.#overrides.get('linkpath') ?? this.#text(157, 100),
    }
  }

  // The sum of all bytes of the header, its own field read as blanks.
  #checkSum(): void {
    let sum = 8 * 32
    for (let at = 0; at < blockBytes; at += 1) {
      if (at < 148 || at >= 156) sum += this.#head[at] ?? 0
    }
    if (sum !== this.#number(148, 8)) {
      throw new Fault('protocol', `read ${this.#what}: a header's checksum is wrong`)
    }
  }

  #readPax(bytes: Buffer): void {
    let at = 0
    while (at < bytes.length) {
      const blank = bytes.indexOf(0x20, at)
      const size = Number(bytes.toString('latin1', at, blank))
      if (blank < 0 || !Number.isInteger(size) || size < 5 || at + size > bytes.length) {
        throw new Fault('protocol', `read ${this.#what}: a pax record is broken`)
      }
      const record = bytes.toString('utf8', blank + 1, at + size - 1)
      const equals = record.indexOf('=')
      this.#overrides.set(record.slice(0, equals), record.slice(equals + 1))
      at += size
    }
  }

  #text(at: number, size: number): string {
    const field = this.#head.subarray(at, at + size)
    const end = field.indexOf(0)
    return field.toString('utf8', 0, end < 0 ? size : end)
  }

  // Octal digits, or, with the top bit set, a number in base 256.
  #number(at: number, size: number): number {
    const first = this.#head[at] ?? 0
    if (first >= 0x80) {
      let value = first & 0x7f
      for (let n = 1; n < size; n += 1) value = value * 256 + (this.#head[at + n] ?? 0)
      if (!Number.isSafeInteger(value)) throw new Fault('protocol', `read ${this.#what}: a number`)
      return value
    }
    const digits = this.#text(at, size).trim()
    if (!/^[0-7]*$/.test(digits)) {
      throw new Fault('protocol', `read ${this.#what}: ${JSON.stringify(digits)} is no number`)
    }
    return digits === '' ? 0 : Number.parseInt(digits, 8)
  }
}

function cleanPath(path: string, what: string): string {
  const clean = path.replace(/^\.\//, '').replace(/\/+$/, '')
  const wild = clean.startsWith('/') || clean.split('/').includes('..') || clean.includes('\0')
  if (wild || Buffer.byteLength(clean) > pathBytesMax) {
    throw new Fault('protocol', `read ${what}: path ${JSON.stringify(path.slice(0, 200))}`)
  }
  return clean
}
