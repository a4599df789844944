import { Fault } from '#base/faults'
import { decodeServerError, type ServerError } from '../protocol/faults.ts'
import { decodeRow, type Wire } from '../protocol/wire.ts'
import {
  arraysBytes,
  type Cells,
  copyRowBytesMax,
  headBytes,
  putArrays,
  putBytes,
  putCopyRow,
  putInt32,
  putValues,
  valuesBytes,
} from './encode.kernel.ts'

/** What is gathered before it is sent. */
const outBytes = 1 << 20
/** Statements that a session keeps prepared. */
const preparedMax = 500
const copyData = 0x64

/** What became of what was sent: rows of each statement that ended, in order, and why the next one failed. */
export type Outcome = {
  readonly counts: readonly number[]
  readonly failure?: ServerError
  /** The first cell of each row that came back. */
  readonly rows: readonly string[]
}

/** Statements sent one behind the other without waiting: the answers are read when all are on their way. */
export class Pipeline {
  readonly #wire: Wire
  #isBusy = false
  readonly #out = Buffer.allocUnsafeSlow(outBytes)
  readonly #names = new Map<string, string>()
  #parsing: string[] = []
  #fill = 0
  #named = 0
  #sent = 0
  /** Where the head of the CopyData message that is being filled is. */
  #copyAt = -1

  constructor(wire: Wire) {
    this.#wire = wire
  }

  /** Statements since `end` was called last. */
  get sent(): number {
    return this.#sent
  }

  /** Whether answers are still to come: a session that is left so is of no use any more. */
  get isBusy(): boolean {
    return this.#isBusy
  }

  /** A statement whose parameters are written down as text. */
  async run(sql: string, values: readonly (string | undefined)[], signal: AbortSignal) {
    const bytes = Buffer.from(values.map((value) => value ?? '').join(''))
    const ends = new Int32Array(values.length * 2)
    let at = 0
    for (const [index, value] of values.entries()) {
      ends[index * 2] = value === undefined ? -1 : at
      at += value === undefined ? 0 : Buffer.byteLength(value)
      ends[index * 2 + 1] = at
    }
    const places = Int32Array.from(values, (_, index) => index * 2)
    await this.one(sql, { bytes, cells: ends, base: 0, places }, signal)
  }

  /** A statement for one row: its parameters are cells. */
  async one(sql: string, row: Cells, signal: AbortSignal): Promise<void> {
    const name = await this.#prepare(sql, signal)
    const size = headBytes + name.length + 8 + valuesBytes(row)
    if (size + 64 > outBytes) await this.#oneLarge(name, row, signal)
    else {
      await this.#room(size + 64, signal)
      const head = this.#bindHead(name, 0)
      this.#fill = putValues(this.#out, this.#fill, row)
      this.#bindEnd(head)
    }
    await this.#execute(signal)
  }

  // The values go from where they are, and are not gathered first.
  async #oneLarge(name: string, row: Cells, signal: AbortSignal): Promise<void> {
    await this.#room(64 + name.length, signal)
    const head = this.#bindHead(name, 0)
    putInt32(this.#out, head + 1, this.#fill - head - 1 + valuesBytes(row))
    const { bytes, cells, base, places } = row
    this.#out.writeInt16BE(places.length, this.#fill)
    this.#fill += 2
    for (const at of places) {
      const [from = 0, end = 0] = [cells[base + at], cells[base + at + 1]]
      await this.#room(4, signal)
      putInt32(this.#out, this.#fill, from < 0 ? -1 : end - from)
      this.#fill += 4
      if (from >= 0) await this.#pass(bytes.subarray(from, end), signal)
    }
    await this.#room(2, signal)
    this.#out.writeInt16BE(0, this.#fill)
    this.#fill += 2
  }

  async #pass(bytes: Buffer, signal: AbortSignal): Promise<void> {
    if (this.#fill + bytes.length <= outBytes) {
      this.#fill = putBytes(this.#out, this.#fill, bytes)
      return
    }
    await this.#flush(signal)
    await this.#wire.forward(bytes, signal)
  }

  /** A statement for many rows: each parameter is an array of texts, one of each row. They fit: see `arraysMaxBytes`. */
  async many(sql: string, rows: readonly Cells[], signal: AbortSignal): Promise<void> {
    const name = await this.#prepare(sql, signal)
    await this.#room(arraysBytes(rows) + name.length + 64, signal)
    const head = this.#bindHead(name, 1)
    this.#fill = putArrays(this.#out, this.#fill, rows)
    this.#bindEnd(head)
    await this.#execute(signal)
  }

  /** Rows by COPY in the form of text; `end` of the copy is told by `endCopy`. */
  async beginCopy(sql: string, signal: AbortSignal): Promise<void> {
    const name = await this.#prepare(sql, signal)
    await this.#room(64 + name.length, signal)
    const head = this.#bindHead(name, 0)
    this.#out.writeInt16BE(0, this.#fill)
    this.#fill += 2
    this.#bindEnd(head)
    await this.#execute(signal)
  }

  async copyRow(row: Cells, signal: AbortSignal): Promise<void> {
    const size = copyRowBytesMax(row)
    if (size + headBytes > outBytes) {
      // Rare, and bounded by what a value may be: it is written down by itself.
      this.#closeCopy()
      const text = Buffer.allocUnsafeSlow(size + headBytes)
      const end = putCopyRow(text, headBytes, row)
      text[0] = copyData
      putInt32(text, 1, end - 1)
      await this.#flush(signal)
      return this.#wire.forward(text.subarray(0, end), signal)
    }
    if (this.#fill + size + headBytes > outBytes) {
      this.#closeCopy()
      await this.#flush(signal)
    }
    if (this.#copyAt < 0) {
      this.#copyAt = this.#fill
      this.#out[this.#fill] = copyData
      this.#fill += headBytes
    }
    this.#fill = putCopyRow(this.#out, this.#fill, row)
  }

  async endCopy(signal: AbortSignal): Promise<void> {
    this.#closeCopy()
    await this.#room(headBytes, signal)
    this.#out.write('c', this.#fill, 'latin1')
    putInt32(this.#out, this.#fill + 1, 4)
    this.#fill += headBytes
  }

  #closeCopy(): void {
    if (this.#copyAt < 0) return
    putInt32(this.#out, this.#copyAt + 1, this.#fill - this.#copyAt - 1)
    this.#copyAt = -1
  }

  /** Sends what is left, and reads all answers. */
  async end(signal: AbortSignal): Promise<Outcome> {
    await this.#room(headBytes, signal)
    this.#out.write('S', this.#fill, 'latin1')
    putInt32(this.#out, this.#fill + 1, 4)
    this.#fill += headBytes
    await this.#flush(signal)
    this.#sent = 0
    const outcome = await this.#read(signal)
    this.#isBusy = false
    return outcome
  }

  async #read(signal: AbortSignal): Promise<Outcome> {
    const counts: number[] = []
    const rows: string[] = []
    let failure: ServerError | undefined
    let parsed = 0
    for (;;) {
      const message = this.#wire.poll() ?? (await this.#wire.next(signal))
      if (!message) continue
      const { type, body } = message
      if (type === 'C') counts.push(readCount(body))
      else if (type === 'D') rows.push(decodeRow(body)[0] ?? '')
      else if (type === '1') parsed += 1
      else if (type === 'E') failure ??= decodeServerError(body)
      else if (type === 'Z') break
      else if (!'23nNSGtI'.includes(type)) throw unexpected(type)
    }
    for (const sql of this.#parsing.slice(parsed)) this.#names.delete(sql)
    this.#parsing = []
    return failure === undefined ? { counts, rows } : { counts, rows, failure }
  }

  async #prepare(sql: string, signal: AbortSignal): Promise<string> {
    this.#isBusy = true
    const known = this.#names.get(sql)
    if (known !== undefined) return known
    const [oldest] = this.#names
    if (oldest && this.#names.size >= preparedMax) {
      await this.#message('C', `S${oldest[1]}\0`, signal)
      this.#names.delete(oldest[0])
    }
    this.#named += 1
    const name = `r${this.#named}`
    await this.#message('P', `${name}\0${sql}\0\0\0`, signal)
    this.#names.set(sql, name)
    this.#parsing.push(sql)
    return name
  }

  async #message(type: string, text: string, signal: AbortSignal): Promise<void> {
    const body = Buffer.from(text)
    await this.#room(headBytes, signal)
    this.#out.write(type, this.#fill, 'latin1')
    putInt32(this.#out, this.#fill + 1, body.length + 4)
    this.#fill += headBytes
    await this.#pass(body, signal)
  }

  #bindHead(name: string, format: 0 | 1): number {
    const out = this.#out
    const head = this.#fill
    out.write('B', head, 'latin1')
    let at = head + headBytes
    out[at] = 0
    at += 1 + out.write(`${name}\0`, at + 1, 'latin1')
    out.writeInt16BE(format, at)
    if (format === 1) out.writeInt16BE(1, at + 2)
    this.#fill = at + 2 + format * 2
    return head
  }

  #bindEnd(head: number): void {
    this.#out.writeInt16BE(0, this.#fill)
    this.#fill += 2
    putInt32(this.#out, head + 1, this.#fill - head - 1)
  }

  async #execute(signal: AbortSignal): Promise<void> {
    await this.#room(10, signal)
    this.#out.write('E', this.#fill, 'latin1')
    putInt32(this.#out, this.#fill + 1, 9)
    this.#out[this.#fill + 5] = 0
    putInt32(this.#out, this.#fill + 6, 0)
    this.#fill += 10
    this.#sent += 1
  }

  async #room(size: number, signal: AbortSignal): Promise<void> {
    if (this.#fill + size > outBytes) await this.#flush(signal)
  }

  async #flush(signal: AbortSignal): Promise<void> {
    if (this.#fill === 0) return
    const bytes = this.#out.subarray(0, this.#fill)
    this.#fill = 0
    await this.#wire.forward(bytes, signal)
  }
}

/** The number that a command's tag ends with: `INSERT 0 5`, `UPDATE 3`; 0 where it has none. */
function readCount(body: Buffer): number {
  let count = 0
  let unit = 1
  for (let at = body.length - 2; at >= 0; at -= 1) {
    const digit = (body[at] ?? 0) - 0x30
    if (digit < 0 || digit > 9) break
    count += digit * unit
    unit *= 10
  }
  return count
}

function unexpected(type: string): Fault {
  return new Fault('protocol', `apply changes: message ${type} came`)
}
