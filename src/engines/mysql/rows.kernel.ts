import { Fault } from '#base/faults'
import type { RowKernel } from './row-kernel.ts'
import { fromServer } from './protocol/server-error.ts'
import { decodeError } from './protocol/packets.ts'

const outSize = 1024 * 1024
/** Packets up to this size are gathered whole when a chunk of the socket ends inside them. */
const gatherMax = 256 * 1024
const tab = 9
const newline = 10
const backslash = 0x5c

/** Second byte of the escape for a byte that LOAD DATA gives a meaning; 0 for all others. */
const escapes = new Uint8Array(256)
escapes[0] = 0x30
escapes[tab] = 0x74
escapes[newline] = 0x6e
escapes[backslash] = backslash

/** Lines are given on when there are so many, or when they end: the more at a time the less it costs. */
const giveMinBytes = 512 * 1024

/**
 * Turns the row packets of a text result into lines for LOAD DATA without decoding a value: cells separated by tabs,
 * `\N` for NULL, and zero byte, tab, newline and backslash escaped. Bytes go in as they come from the socket, packet
 * headers included. https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response_text_resultset_row.html
 */
export class RowText {
  readonly #columns: number
  readonly #kernel: RowKernel | undefined
  readonly #digested: number
  readonly #ready: Buffer[] = []
  /** Of what no kernel makes: there from the first such row on. */
  #out = Buffer.alloc(0)
  #used = 0
  #carry: Buffer | undefined
  // The slow path's place inside a packet that no chunk holds whole.
  #packetLeft = 0
  #packetGoesOn = false
  #column = 0
  #cellLeft = 0
  #lengthLeft = 0
  #lengthShift = 0
  #length = 0
  #inPacket = false
  #header = 0
  #headerHave = 0
  /** Where in the output begins what is to go into the digest of the present line; undefined when nothing is. */
  #digestFrom: number | undefined
  rows = 0
  done = false

  /**
   * Without the kernel the same is done in plain code, the tests' oracle, but for the digest over so many cells of each
   * row: 0 for none.
   */
  constructor(columns: number, kernel?: RowKernel, digested = 0) {
    this.#columns = columns
    this.#kernel = kernel
    this.#digested = digested
    kernel?.clear()
  }

  /** Of all rows so far, whatever their order: the sum of the XXH64 of the digested cells of each line. */
  get digest(): bigint {
    return this.#kernel?.digest ?? 0n
  }

  /**
   * Takes bytes of the socket and gives lines when many are finished, or the last: views that last until the next is
   * asked for.
   */
  *take(bytes: Buffer): Generator<Buffer, void, void> {
    let source = bytes
    let at = 0
    while (at < source.length && !this.done) {
      if (this.#inPacket) {
        at = this.#slow(source, at)
      } else if (this.#kernel && !this.#isLong(source, at)) {
        yield* this.#drainReady()
        at += this.#kernel.put(source, at)
        if (!(yield* this.#run(this.#kernel))) continue
        source = Buffer.concat([this.#kernel.drain(), source.subarray(at)])
        at = this.#plain(source, 0, true)
      } else {
        if (this.#kernel && this.#kernel.textBytes > 0) yield this.#kernel.takeText()
        const left = this.#carry ? Buffer.concat([this.#carry, source.subarray(at)]) : undefined
        this.#carry = undefined
        if (left) [source, at] = [left, 0]
        const next = this.#plain(source, at, false)
        if (next === at) {
          this.#carry = Buffer.from(source.subarray(at))
          break
        }
        at = next
      }
    }
    if (this.done && this.#used > 0) this.#flush()
    yield* this.#drainReady()
  }

  /** Lines of the plain code, which come before those that the kernel will make. */
  *#drainReady(): Generator<Buffer, void, void> {
    if (this.#kernel && !this.#inPacket && this.#used > 0) this.#flush()
    while (this.#ready.length > 0) yield this.#ready.shift()!
  }

  /** Whether the kernel holds nothing and a packet begins that is not for it. */
  #isLong(source: Buffer, at: number): boolean {
    if (this.#kernel!.waitingBytes > 0 || source.length - at < 4) return false
    return sizeAt(source, at) > gatherMax
  }

  /** Common rows by the kernel; returns whether it stopped at a packet that is none. */
  *#run(kernel: RowKernel): Generator<Buffer, boolean, void> {
    for (;;) {
      const { rows, idle, stopped } = kernel.run(this.#columns, gatherMax, this.#digested)
      this.rows += rows
      const isDue = stopped || !idle || kernel.textBytes >= giveMinBytes
      if (isDue && kernel.textBytes > 0) yield kernel.takeText()
      if (idle) return stopped
    }
  }

  /** Packets in plain code, or only the first; returns how far it came: as it was when the packet is not whole. */
  #plain(source: Buffer, start: number, once: boolean): number {
    let at = start
    do {
      const left = source.length - at
      if (left < 4) return at
      const size = sizeAt(source, at)
      if (size > gatherMax) {
        this.#beginSlow(size)
        return at + 4
      }
      if (left < 4 + size) return at
      this.#packet(source, at + 4, at + 4 + size)
      at += 4 + size
    } while (!once && !this.done && at < source.length)
    return at
  }

  #flush(): void {
    if (this.#digestFrom !== undefined) this.#digest(0)
    if (this.#used > 0) this.#ready.push(this.#out.subarray(0, this.#used))
    this.#out = Buffer.allocUnsafeSlow(outSize)
    this.#used = 0
  }

  /** A whole row in one packet: the common case. */
  #packet(source: Buffer, start: number, end: number): void {
    const head = source[start]!
    if (head === 0xfe && end - start < 9) {
      this.done = true
      return
    }
    if (head === 0xff) throw fromServer(decodeError(source.subarray(start, end)), 'read rows')
    if (this.#used + 2 * (end - start) + 2 * this.#columns > this.#out.length) this.#flush()
    const out = this.#out
    let used = this.#used
    let digestEnd = used
    let at = start
    for (let column = 0; column < this.#columns; column++) {
      let size = source[at++]!
      if (size === 0xfb) {
        out[used++] = backslash
        out[used++] = 0x4e
      } else {
        if (size === 0xfc) {
          size = source[at]! | (source[at + 1]! << 8)
          at += 2
        } else if (size === 0xfd) {
          size = source[at]! | (source[at + 1]! << 8) | (source[at + 2]! << 16)
          at += 3
        } else if (size > 0xfc) {
          size = end
        }
        const stop = at + size
        if (stop > end) throw new Fault('protocol', 'read rows: a cell ends outside of its packet')
        while (at < stop) {
          const byte = source[at++]!
          if (byte <= backslash && escapes[byte]! !== 0) {
            out[used++] = backslash
            out[used++] = escapes[byte]!
          } else {
            out[used++] = byte
          }
        }
      }
      out[used++] = tab
      if (column + 1 === this.#digested) digestEnd = used
    }
    if (at !== end) throw new Fault('protocol', 'read rows: a packet is longer than its row')
    out[used - 1] = newline
    if (this.#kernel && this.#digested > 0) {
      this.#kernel.beginLine()
      this.#kernel.addToLine(out.subarray(this.#used, digestEnd))
      this.#kernel.endLine()
    }
    this.#used = used
    this.rows += 1
  }

  #beginSlow(size: number): void {
    this.#inPacket = true
    this.#packetLeft = size
    this.#packetGoesOn = size === 0xffffff
    this.#column = 0
    this.#cellLeft = 0
    this.#lengthLeft = 0
    if (!this.#kernel || this.#digested === 0) return
    this.#kernel.beginLine()
    this.#digestFrom = this.#used
  }

  /** What there is of the line goes into its digest; the rest of it will begin at `next` in the output. */
  #digest(next: number | undefined): void {
    this.#kernel!.addToLine(this.#out.subarray(this.#digestFrom, this.#used))
    this.#digestFrom = next
  }

  /** Goes on in a row that spans chunks or packets, value by value, byte by byte; returns how far it came. */
  #slow(source: Buffer, start: number): number {
    let at = start
    while (at < source.length) {
      if (this.#packetLeft === 0) {
        if (!this.#packetGoesOn) {
          this.#endSlow()
          return at
        }
        // The next packet of the same row: its header may itself be cut.
        this.#header |= source[at++]! << (8 * this.#headerHave++)
        if (this.#headerHave < 4) continue
        this.#packetLeft = this.#header & 0xffffff
        this.#packetGoesOn = this.#packetLeft === 0xffffff
        this.#header = 0
        this.#headerHave = 0
        continue
      }
      const end = Math.min(source.length, at + this.#packetLeft)
      const next =
        this.#cellLeft > 0 ? this.#cell(source, at, end) : this.#lengthByte(source[at]!, at)
      this.#packetLeft -= next - at
      at = next
    }
    if (this.#packetLeft === 0 && !this.#packetGoesOn) this.#endSlow()
    return at
  }

  #endSlow(): void {
    this.#inPacket = false
    if (this.#column !== this.#columns) {
      throw new Fault('protocol', `read rows: ${this.#column} of ${this.#columns} cells came`)
    }
    if (this.#digested > 0) this.#kernel?.endLine()
    this.rows += 1
  }

  /** One byte of a cell's length; the row's packet is too long to be an error or the end. */
  #lengthByte(byte: number, at: number): number {
    if (this.#lengthLeft === 0) {
      this.#length = byte < 0xfb ? byte : 0
      this.#lengthShift = 0
      this.#lengthLeft = byte === 0xfc ? 2 : byte === 0xfd ? 3 : byte === 0xfe ? 8 : 0
      if (byte === 0xfb) {
        this.#emit(backslash)
        this.#emit(0x4e)
      }
    } else {
      this.#length += byte * 2 ** this.#lengthShift
      this.#lengthShift += 8
      this.#lengthLeft -= 1
    }
    if (this.#lengthLeft === 0) {
      this.#cellLeft = this.#length
      if (this.#cellLeft === 0) this.#endCell()
    }
    return at + 1
  }

  #cell(source: Buffer, start: number, limit: number): number {
    const end = Math.min(limit, start + this.#cellLeft)
    for (let at = start; at < end; at++) {
      const byte = source[at]!
      const escape = escapes[byte]!
      if (escape !== 0) {
        this.#emit(backslash)
        this.#emit(escape)
      } else {
        this.#emit(byte)
      }
    }
    this.#cellLeft -= end - start
    if (this.#cellLeft === 0) this.#endCell()
    return end
  }

  #endCell(): void {
    this.#column += 1
    if (this.#column > this.#columns) {
      throw new Fault('protocol', 'read rows: a packet is longer than its row')
    }
    this.#emit(this.#column === this.#columns ? newline : tab)
    if (this.#column === this.#digested && this.#digestFrom !== undefined) this.#digest(undefined)
  }

  #emit(byte: number): void {
    if (this.#used === this.#out.length) this.#flush()
    this.#out[this.#used++] = byte
  }
}

function sizeAt(source: Buffer, at: number): number {
  return source[at]! | (source[at + 1]! << 8) | (source[at + 2]! << 16)
}
