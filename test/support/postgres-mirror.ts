import assert from 'node:assert/strict'
import { silentLog } from '#base/log'
import type { LogBeat, Position } from '#change'
import type { Batch, ChangeReader, Relation, RowRun } from '#change/batch'
import { PostgresChanges } from '../../src/engines/postgres/changes/changes.ts'
import { openSession, parseAddress } from '../../src/engines/postgres/connection.ts'
import { readFacts } from '../../src/engines/postgres/facts.ts'

/** What a cell says: its text, NULL, or that the image does not have it. */
export type Cell = string | null | undefined

type OpenReader = {
  readonly after: Position
  readonly name?: string | undefined
  readonly accepts?: ((name: readonly string[]) => boolean) | undefined
  readonly rowsMax?: number | undefined
  readonly bytesMax?: number | undefined
  readonly directory?: string | undefined
}

export async function openChangesOf(url: string): Promise<PostgresChanges> {
  const signal = AbortSignal.timeout(600_000)
  const address = parseAddress(url)
  await using session = await openSession(address, { signal })
  return new PostgresChanges(address, await readFacts(session, signal))
}

export async function openReader(url: string, options: OpenReader): Promise<ChangeReader> {
  const changes = await openChangesOf(url)
  return changes.openChanges({
    name: options.name ?? 'test',
    after: options.after,
    selection: { accepts: options.accepts ?? (() => true) },
    batchRowsMax: options.rowsMax ?? 10_000,
    batchBytesMax: options.bytesMax ?? 4 << 20,
    directory: options.directory,
    log: silentLog,
    signal: AbortSignal.timeout(600_000),
  })
}

/** Reads until something was seen; every item goes to `take`. */
export async function readUntil(
  reader: ChangeReader,
  take: (item: Batch | LogBeat) => boolean,
): Promise<void> {
  for await (const item of reader.read({ signal: AbortSignal.timeout(600_000) })) {
    if (take(item)) return
  }
}

/** The images of a run's rows, one after the other: before, after, or both. */
export function imagesOf(run: RowRun): readonly (readonly Cell[])[] {
  const columns = run.relation.columns.length
  const count = run.rows * (run.kind === 'update' ? 2 : 1)
  assert.equal(run.cells.length, count * columns * 2)
  return Array.from({ length: count }, (_, image) =>
    run.relation.columns.map((_column, index) => {
      const at = (image * columns + index) * 2
      const [from = 0, to = 0] = run.cells.subarray(at, at + 2)
      if (from === -1) return null
      return from === -2 ? undefined : run.bytes.toString('utf8', from, to)
    }),
  )
}

/** Tables kept by nothing but the changes: what a target would hold. */
export class Mirror {
  readonly tables = new Map<string, Map<string, Cell[]>>()
  readonly positions: Position[] = []
  /** Ids of the transactions that ended. */
  readonly ids: string[] = []
  #open: string | undefined

  /** Of a transaction in pieces it is checked that they fit together. */
  take(batch: Batch): void {
    for (const one of batch.transactions) {
      assert.equal(one.begins, this.#open === undefined, `transaction ${one.id} begins`)
      if (!one.begins) assert.equal(one.id, this.#open)
      this.#open = one.ends ? undefined : one.id
      assert.equal(one.position !== undefined, one.ends)
      for (const change of one.changes) {
        if (change.kind === 'statement') assert.fail('a statement')
        if (change.kind === 'truncate') {
          for (const relation of change.relations) this.rows(relation).clear()
        } else this.#run(change)
      }
      if (one.ends) this.ids.push(one.id)
      if (one.position) this.positions.push(one.position)
    }
  }

  rows(relation: Relation): Map<string, Cell[]> {
    const name = relation.name.join('.')
    const rows = this.tables.get(name) ?? new Map<string, Cell[]>()
    this.tables.set(name, rows)
    return rows
  }

  /** The rows of a table, sorted as text. */
  content(name: string): string[] {
    return [...(this.tables.get(name)?.values() ?? [])].map((row) => JSON.stringify(row)).sort()
  }

  #run(run: RowRun): void {
    const rows = this.rows(run.relation)
    const images = imagesOf(run)
    const step = run.kind === 'update' ? 2 : 1
    for (let at = 0; at < images.length; at += step) {
      const image = images[at] ?? []
      const after = run.kind === 'update' ? (images[at + 1] ?? []) : image
      const key = keyOf(run.relation, image)
      const old = rows.get(key)
      if (run.kind === 'insert') assert.equal(old, undefined, `row ${key} twice`)
      else assert.ok(old, `row ${key} of ${run.relation.name.join('.')} is there`)
      if (run.kind !== 'insert') rows.delete(key)
      if (run.kind === 'delete') continue
      const row = after.map((cell, index) => (cell === undefined ? old?.[index] : cell))
      rows.set(keyOf(run.relation, row), row)
    }
  }
}

function keyOf(relation: Relation, image: readonly Cell[]): string {
  const key = relation.columns.map((column, index) => (column.identifies ? image[index] : 0))
  return JSON.stringify(key)
}
