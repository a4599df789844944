import assert from 'node:assert/strict'
import { silentLog } from '#base/log'
import type { LogBeat, Position } from '#change'
import {
  type Batch,
  cellAbsent,
  cellNull,
  isPatch,
  type Relation,
  type RelationColumn,
  type RowRun,
} from '#change/batch'
import { decodeJsonPatch } from '../../src/engines/mysql/changes/json.ts'
import { mysql } from '../../src/engines/mysql/mysql.ts'
import { createCellReader, type ReadCell } from '../../src/engines/mysql/values.ts'
import { logEnd } from './mysql-family-harness.ts'
import type { FamilyServer } from './servers/mysql-family.ts'

const limitMs = 600_000

/** What a cell says: its text (of bytes in hexadecimal), NULL, or that the image does not have it. */
export type Cell = string | null | undefined

export type Wanted = {
  readonly after?: Position
  readonly accepts?: (name: readonly string[]) => boolean
  readonly rowsMax?: number
  readonly bytesMax?: number
}

/** Where the server's log ends now. */
export async function positionOf(server: FamilyServer): Promise<Position> {
  const signal = AbortSignal.timeout(limitMs)
  await using engine = await mysql.open(server.url, { signal, log: silentLog })
  return { history: engine.facts.history, at: await logEnd(server) }
}

/** All batches up to the present end of the log. */
export async function readAll(server: FamilyServer, wanted: Wanted): Promise<Batch[]> {
  const goal = await logEnd(server)
  const batches: Batch[] = []
  await readItems(server, wanted, (item) => {
    if (item.kind === 'batch') batches.push(item)
    const last = item.kind === 'batch' ? item.transactions.at(-1)?.position?.at : item.at
    return last !== undefined && last.slice(0, 23) >= goal
  })
  return batches
}

export async function readItems(
  server: FamilyServer,
  wanted: Wanted,
  take: (item: Batch | LogBeat) => boolean,
): Promise<void> {
  const signal = AbortSignal.timeout(limitMs)
  await using engine = await mysql.open(server.url, { signal, log: silentLog })
  assert.ok(engine.changes)
  await using reader = await engine.changes.openChanges({
    name: 'test',
    after: wanted.after ?? { history: engine.facts.history, at: '0000000001.000000000000' },
    selection: { accepts: wanted.accepts ?? ((name) => name[0] !== 'mysql') },
    batchRowsMax: wanted.rowsMax ?? 10_000,
    batchBytesMax: wanted.bytesMax ?? 4 << 20,
    log: silentLog,
    signal,
  })
  for await (const item of reader.read({ signal })) if (take(item)) return
}

const readers = new WeakMap<Relation, readonly ReadCell[]>()

/** The images of a run's rows, one after the other: before, after, or both. */
export function imagesOf(run: RowRun): Cell[][] {
  const { relation, cells, bytes } = run
  const columns = relation.columns.length
  const count = run.rows * (run.kind === 'update' ? 2 : 1)
  assert.equal(cells.length, count * columns * 2)
  const read = readers.get(relation) ?? relation.columns.map((column) => createCellReader(column))
  readers.set(relation, read)
  return Array.from({ length: count }, (_, image) =>
    read.map((one, index) => {
      const at = (image * columns + index) * 2
      const [start = 0, end = 0] = cells.subarray(at, at + 2)
      if (start === cellNull) return null
      if (start === cellAbsent) return undefined
      if (isPatch(end)) {
        const steps = decodeJsonPatch(bytes.subarray(start, ~end))
        return steps.map(({ verb, path, value }) => `${verb} ${path} ${value}`).join('; ')
      }
      const value = one(bytes, start, end)
      return typeof value === 'string' ? value : value.toString('hex').toUpperCase()
    }),
  )
}

/** Tables kept by nothing but the changes: what a target would hold. */
export class Mirror {
  readonly tables = new Map<string, Map<string, Cell[][]>>()
  readonly relations = new Map<string, Relation>()
  readonly positions: Position[] = []
  readonly statements: string[] = []
  /** Transactions that ended. */
  readonly ids: string[] = []
  #open: string | undefined

  /** Of a transaction in pieces it is checked that they fit together. */
  take(batch: Batch): void {
    for (const one of batch.transactions) {
      assert.equal(one.begins, this.#open === undefined, `transaction ${one.id} begins`)
      this.#open = one.ends ? undefined : one.id
      assert.equal(one.position !== undefined, one.ends)
      for (const change of one.changes) {
        if (change.kind === 'statement') this.#statement(change.sql)
        else if (change.kind !== 'truncate') this.#run(change)
      }
      if (one.ends) this.ids.push(one.id)
      if (one.position) this.positions.push(one.position)
    }
  }

  #statement(sql: string): void {
    this.statements.push(sql)
    const name = /^truncate(?: table)? (\S+)/i.exec(sql)?.[1]
    if (name !== undefined) this.tables.get(name)?.clear()
  }

  #run(run: RowRun): void {
    const name = run.relation.name.join('.')
    const rows = this.tables.get(name) ?? new Map<string, Cell[][]>()
    this.tables.set(name, rows)
    this.relations.set(name, run.relation)
    const images = imagesOf(run)
    const step = run.kind === 'update' ? 2 : 1
    for (let at = 0; at < images.length; at += step) {
      const image = images[at] ?? []
      const after = run.kind === 'update' ? (images[at + 1] ?? []) : image
      let old: Cell[] | undefined
      if (run.kind !== 'insert') {
        const key = keyOf(run.relation, image)
        const same = rows.get(key) ?? []
        old = same.pop()
        assert.ok(old, `row ${key} of ${name} is there`)
        if (same.length === 0) rows.delete(key)
      }
      if (run.kind === 'delete') continue
      const row = after.map((cell, index) => (cell === undefined ? old?.[index] : cell))
      const key = keyOf(run.relation, row)
      rows.set(key, [...(rows.get(key) ?? []), row])
    }
  }

  /** Compares with what the server says that the tables hold now; returns how many rows there were. */
  async compare(server: FamilyServer): Promise<number> {
    let count = 0
    await using client = await server.connect()
    await client.query(`set session time_zone = '+00:00', sql_mode = ''`)
    for (const [name, relation] of this.relations) {
      const list = relation.columns.map(asText).join(', ')
      const versioned = relation.columns.some((column) => column.name === 'row_end')
      const all = versioned ? ' for system_time all' : ''
      const from = relation.name.map(quote).join('.') + all
      const [found] = await client.query({ sql: `select ${list} from ${from}`, rowsAsArray: true })
      const theirs = (found as Cell[][]).map((row) => row.map((cell) => cell ?? null))
      const mine = [...(this.tables.get(name)?.values() ?? [])].flat()
      const plain = (rows: readonly Cell[][]) =>
        rows
          .map((row) => row.map((cell, at) => comparable(relation.columns[at], cell)))
          .toSorted(byText)
      assert.deepEqual(plain(mine), plain(theirs), `rows of ${name}`)
      count += mine.length
    }
    return count
  }
}

function byText(a: unknown, b: unknown): number {
  return JSON.stringify(a) < JSON.stringify(b) ? -1 : 1
}

function keyOf(relation: Relation, image: readonly Cell[]): string {
  const keyed = relation.columns.some((column) => column.identifies)
  const key = relation.columns.map((column, index) =>
    !keyed || column.identifies ? image[index] : 0,
  )
  return JSON.stringify(key)
}

function quote(name: string): string {
  return `\`${name.replaceAll('`', '``')}\``
}

function isBytes({ type, charset }: RelationColumn): boolean {
  if (/^(?:bit|geometry|point|polygon|vector|uuid|inet)/.test(type)) return true
  return /binary|blob|char|text/.test(type) && charset === 'binary'
}

function asText(column: RelationColumn): string {
  const name = quote(column.name)
  if (column.type.startsWith('bit')) {
    return `lpad(hex(${name} + 0), ${((column.modifier + 7) >> 3) * 2}, '0')`
  }
  if (/^(?:uuid|inet)/.test(column.type)) return `hex(cast(${name} as binary(16)))`
  if (isBytes(column)) return `hex(${name})`
  if (column.type.startsWith('float')) return `cast(${name} * 1e0 as char)`
  return `convert(cast(${name} as char) using utf8mb4)`
}

function comparable(column: RelationColumn | undefined, cell: Cell): Cell | number {
  if (typeof cell !== 'string' || !/^(?:float|double)/.test(column?.type ?? '')) return cell
  return Math.fround(Number(cell)) === Number(cell) || column?.type.startsWith('float') !== true
    ? Number(cell)
    : Math.fround(Number(cell))
}
