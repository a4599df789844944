import { Reader } from '#base/bytes'
import { Fault } from '#base/faults'
import type { Selection } from '#change/schema'
import {
  cellAbsent,
  cellNull,
  type CellForm,
  type Relation,
  type RelationColumn,
} from '#change/batch'
import { positionOf, type Timeline } from '../lsn.ts'
import type { BatchBuilder } from './batches.ts'
import { typeText } from './types.ts'

/** Microseconds between 1970 and 2000. */
const epochUs = 946_684_800_000_000n
/** A table has at most 1600 columns. */
const columnsMax = 1600

type Known = {
  /** Undefined when nobody wants its rows. */
  readonly relation: Relation | undefined
  readonly columns: number
  readonly identifies: Uint8Array
  readonly name: string
}

const unknown: Known = { relation: undefined, columns: 0, identifies: new Uint8Array(0), name: '' }

export type DecoderOptions = {
  readonly accepts: Selection['accepts']
  readonly form: CellForm
  readonly timeline: Timeline
  readonly builder: BatchBuilder
  /** Names of the types that every server has, by their oids. */
  readonly typeNames: ReadonlyMap<number, string>
}

/**
 * Decodes messages of `pgoutput` into rows whose cells are offsets.
 * https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
 */
export class PgoutputDecoder {
  readonly #options: DecoderOptions
  readonly #builder: BatchBuilder
  readonly #known = new Map<number, Known>()
  readonly #types = new Map<number, string>()
  #lastId = -1
  #last: Known = unknown
  #ids = 0

  constructor(options: DecoderOptions) {
    this.#options = options
    this.#builder = options.builder
  }

  /** Takes in one message from `at` to `end`; of a streamed transaction each bears its transaction's number. */
  message(bytes: Buffer, at: number, end: number, streamed: boolean): void {
    if (at >= end) throw broken('an empty message')
    const from = streamed ? at + 5 : at + 1
    switch (bytes[at]) {
      case 0x49: // I
        return this.#insert(bytes, from, end)
      case 0x55: // U
        return this.#update(bytes, from, end)
      case 0x44: // D
        return this.#delete(bytes, from, end)
      case 0x42: // B
        return this.#begin(new Reader(bytes.subarray(from, end), 'a begin message'))
      case 0x43: // C
        return this.#commit(new Reader(bytes.subarray(from, end), 'a commit message'))
      case 0x52: // R
        return this.#relation(new Reader(bytes.subarray(from, end), 'a relation message'))
      case 0x59: // Y
        return this.#type(new Reader(bytes.subarray(from, end), 'a type message'))
      case 0x54: // T
        return this.#truncate(new Reader(bytes.subarray(from, end), 'a truncate message'))
      case 0x4f: // O
        return this.#origin(new Reader(bytes.subarray(from, end), 'an origin message'))
      case 0x4d: // M, which nobody asked for
        return
      default:
        throw broken(`message ${bytes[at]}`)
    }
  }

  /** Begins a transaction that was streamed before it committed. */
  beginStreamed(xid: number, timeUs: bigint): void {
    this.#builder.begin(String(xid), timeUs)
  }

  /** Ends what `beginStreamed` began. */
  commitStreamed(end: bigint): void {
    this.#builder.commit(positionOf(this.#options.timeline, end))
  }

  #begin(reader: Reader): void {
    reader.skip(8)
    const timeUs = reader.i64be() + epochUs
    this.#builder.begin(String(reader.u32be()), timeUs)
    ended(reader)
  }

  #commit(reader: Reader): void {
    reader.skip(9)
    const end = reader.u64be()
    reader.skip(8)
    ended(reader)
    this.#builder.commit(positionOf(this.#options.timeline, end))
  }

  #origin(reader: Reader): void {
    reader.skip(8)
    this.#builder.origin(reader.cstring())
    ended(reader)
  }

  #type(reader: Reader): void {
    const oid = reader.u32be()
    this.#types.set(oid, `${quoted(reader.cstring() || 'pg_catalog')}.${quoted(reader.cstring())}`)
    ended(reader)
  }

  #relation(reader: Reader): void {
    const id = reader.u32be()
    const name = [reader.cstring() || 'pg_catalog', reader.cstring()]
    const identity = String.fromCharCode(reader.u8())
    const count = reader.u16be()
    if (count > columnsMax) throw broken(`a table of ${count} columns`)
    const columns: RelationColumn[] = []
    for (let index = 0; index < count; index += 1) {
      const identifies = (reader.u8() & 1) === 1
      const column = reader.cstring()
      const code = reader.u32be()
      const modifier = reader.i32be()
      const type = typeText(
        this.#types.get(code) ?? this.#options.typeNames.get(code) ?? `oid ${code}`,
        modifier,
      )
      columns.push({ name: column, type, code, modifier, identifies })
    }
    ended(reader)
    this.#learn(id, name, identity, columns)
  }

  #learn(
    id: number,
    name: readonly string[],
    identity: string,
    columns: readonly RelationColumn[],
  ): void {
    const identified = identity !== 'n' && columns.some((column) => column.identifies)
    const before = identity === 'f' ? 'full' : identified ? 'key' : 'none'
    const { form, accepts } = this.#options
    const old = this.#known.get(id)
    const relation: Relation = { id: this.#ids, name, columns, form, before }
    this.#lastId = -1
    // It comes again after each reconnection and each change of the catalog, mostly the same.
    if (old?.relation && same(old.relation, relation)) return
    this.#ids += 1
    this.#known.set(id, {
      relation: accepts(name) ? relation : undefined,
      columns: columns.length,
      identifies: Uint8Array.from(columns, (column) => Number(column.identifies)),
      name: name.join('.'),
    })
  }

  #truncate(reader: Reader): void {
    const count = reader.u32be()
    const options = reader.u8()
    const relations: Relation[] = []
    for (let index = 0; index < count; index += 1) {
      const { relation } = this.#find(reader.u32be())
      if (relation) relations.push(relation)
    }
    ended(reader)
    if (relations.length === 0 || this.#builder.skips()) return
    const cascade = (options & 1) === 1
    const restartIdentity = (options & 2) === 2
    this.#builder.truncate({ kind: 'truncate', relations, cascade, restartIdentity })
  }

  #find(id: number): Known {
    if (id === this.#lastId) return this.#last
    const known = this.#known.get(id)
    if (!known) throw broken(`a change of table ${id} that was not described`)
    this.#lastId = id
    this.#last = known
    return known
  }

  #insert(bytes: Buffer, at: number, end: number): void {
    if (at + 5 > end) throw broken('an insert that is cut')
    const known = this.#find(u32(bytes, at))
    const { relation } = known
    if (!relation || this.#builder.skips()) return
    const width = known.columns * 2
    const into = this.#builder.room({ kind: 'insert', relation, bytes }, width, end - at)
    if (bytes[at + 4] !== 0x4e) throw broken('an insert without a row')
    this.#ends(this.#tuple(bytes, at + 5, end, known, into), end, known)
  }

  #update(bytes: Buffer, at: number, end: number): void {
    if (at + 5 > end) throw broken('an update that is cut')
    const known = this.#find(u32(bytes, at))
    const { relation } = known
    if (!relation || this.#builder.skips()) return
    const width = known.columns * 2
    const into = this.#builder.room({ kind: 'update', relation, bytes }, width * 2, end - at)
    const tag = bytes[at + 4]
    let next = at + 4
    if (tag === 0x4b || tag === 0x4f) {
      next = this.#tuple(bytes, at + 5, end, known, into)
      if (tag === 0x4b) this.#onlyKey(known, into)
    }
    if (next >= end || bytes[next] !== 0x4e) throw broken('an update without a row')
    next = this.#tuple(bytes, next + 1, end, known, into + width)
    if (tag === 0x4e) this.#sameKey(known, into, width)
    this.#ends(next, end, known)
  }

  #delete(bytes: Buffer, at: number, end: number): void {
    if (at + 5 > end) throw broken('a delete that is cut')
    const known = this.#find(u32(bytes, at))
    const { relation } = known
    if (!relation || this.#builder.skips()) return
    const width = known.columns * 2
    const into = this.#builder.room({ kind: 'delete', relation, bytes }, width, end - at)
    const tag = bytes[at + 4]
    if (tag !== 0x4b && tag !== 0x4f) throw broken('a delete without a row')
    const next = this.#tuple(bytes, at + 5, end, known, into)
    if (tag === 0x4b) this.#onlyKey(known, into)
    this.#ends(next, end, known)
  }

  #tuple(bytes: Buffer, from: number, end: number, known: Known, into: number): number {
    if (from + 2 > end) throw broken('a row that is cut')
    const count = (bytes[from]! << 8) | bytes[from + 1]!
    if (count !== known.columns) {
      throw broken(`a row of ${count} columns of ${known.name}, which has ${known.columns}`)
    }
    const { cells } = this.#builder
    let at = from + 2
    let cell = into
    for (let left = count; left > 0; left -= 1, cell += 2) {
      if (at >= end) throw broken('a row that is cut')
      const kind = bytes[at]!
      at += 1
      if (kind === 0x74 || kind === 0x62) {
        if (at + 4 > end) throw broken('a row that is cut')
        const begin = at + 4
        at = begin + u32(bytes, at)
        if (at > end) throw broken('a value that is cut')
        cells[cell] = begin
        cells[cell + 1] = at
      } else if (kind === 0x6e) {
        cells[cell] = cellNull
        cells[cell + 1] = 0
      } else if (kind === 0x75) {
        cells[cell] = cellAbsent
        cells[cell + 1] = 0
      } else throw broken(`a value of kind ${kind}`)
    }
    return at
  }

  // In a row that bears the key alone all else is said to be NULL, which it need not be.
  #onlyKey(known: Known, into: number): void {
    const { cells } = this.#builder
    for (let index = 0; index < known.columns; index += 1) {
      if (known.identifies[index] === 0) cells[into + index * 2] = cellAbsent
    }
  }

  // Without an old image the key is what it was.
  #sameKey(known: Known, into: number, width: number): void {
    const { cells } = this.#builder
    for (let at = 0; at < width; at += 2) {
      const identifies = known.identifies[at >> 1] === 1
      cells[into + at] = identifies ? cells[into + width + at]! : cellAbsent
      cells[into + at + 1] = identifies ? cells[into + width + at + 1]! : 0
    }
  }

  #ends(at: number, end: number, known: Known): void {
    if (at !== end) throw broken(`${end - at} bytes behind a row of ${known.name}`)
  }
}

function u32(bytes: Buffer, at: number): number {
  return (
    ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0
  )
}

function same(a: Relation, b: Relation): boolean {
  if (a.before !== b.before || a.name.join('\0') !== b.name.join('\0')) return false
  if (a.columns.length !== b.columns.length) return false
  return a.columns.every((column, index) => {
    const other = b.columns[index]
    return (
      other !== undefined &&
      column.name === other.name &&
      column.code === other.code &&
      column.modifier === other.modifier &&
      column.identifies === other.identifies
    )
  })
}

function quoted(name: string): string {
  return /^[a-z_][a-z0-9_$]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`
}

function ended(reader: Reader): void {
  if (reader.left > 0) throw broken(`${reader.left} bytes behind a message`)
}

function broken(what: string): Fault {
  return new Fault('protocol', `read the change stream: ${what}`)
}
