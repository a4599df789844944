import { assert, Fault } from '#base/faults'
import { cellAbsent, cellNull, type Relation, type RowRun, type Truncation } from '#change/batch'
import { endOf, startOf } from './key-hash.kernel.ts'
import { absentOf, type PreparedTable } from './table.ts'

/** A change of one row: where its images are in the cells of its run, -1 where it has none. */
export type RowChange = {
  readonly kind: RowRun['kind']
  readonly table: PreparedTable
  readonly run: RowRun
  readonly before: number
  readonly after: number
  /** The cells that the image after it lacks: see `absentOf`. */
  readonly absent: string
  /** An update that gives its row another key. */
  readonly moves: boolean
}

/** What goes to the server in one statement, or, with `single`, in one for each row and in this order. */
export type Step =
  | {
      readonly kind: RowRun['kind'] | 'single'
      readonly table: PreparedTable
      readonly changes: readonly RowChange[]
    }
  | {
      readonly kind: 'truncate'
      readonly tables: readonly PreparedTable[]
      readonly restart: boolean
    }

export type Prepared = (relation: Relation) => PreparedTable

/** All changes one by one, in their order. */
export function eachChange(
  changes: readonly (RowRun | Truncation)[],
  prepared: Prepared,
): readonly (RowChange | Truncation)[] {
  const all: (RowChange | Truncation)[] = []
  for (const change of changes) {
    if (change.kind === 'truncate') all.push(change)
    else eachRow(change, prepared(change.relation), (row) => all.push(row))
  }
  return all
}

function eachRow(run: RowRun, table: PreparedTable, take: (row: RowChange) => void): void {
  const { kind } = run
  const width = run.relation.columns.length * 2
  const step = kind === 'update' ? width * 2 : width
  assert(run.cells.length === run.rows * step, 'a run has the cells of its rows')
  for (let at = 0; at < run.cells.length; at += step) {
    const before = kind === 'insert' ? -1 : at
    const after = kind === 'delete' ? -1 : kind === 'update' ? at + width : at
    const absent = kind === 'delete' ? '' : absentOf(run, after)
    const moves = kind === 'update' && changesKey(table, run, before, after)
    take({ kind, table, run, before, after, absent, moves })
  }
}

function changesKey(table: PreparedTable, run: RowRun, before: number, after: number): boolean {
  const { bytes, cells } = run
  return (
    table.key?.some(({ index }) => {
      const [from = 0, to = 0] = [cells[before + index * 2], cells[before + index * 2 + 1]]
      const [newFrom = 0, newTo = 0] = [cells[after + index * 2], cells[after + index * 2 + 1]]
      if (newFrom === cellAbsent || from === newFrom) return false
      return bytes.compare(bytes, newFrom, newTo, from, to) !== 0
    }) ?? false
  )
}

/** What a row is found by, as a text that is one for keys that are one. */
function keyText(change: RowChange, image: number): string {
  const { bytes, cells } = change.run
  let text = ''
  for (const { index, sameness } of change.table.key ?? []) {
    let at = image + index * 2
    if (cells[at] === cellAbsent && change.before >= 0) at = change.before + index * 2
    const [from = 0, end = 0] = [cells[at], cells[at + 1]]
    if (from === cellAbsent || from === cellNull) throw keyless(change.table)
    const start = startOf(bytes, from, end, sameness)
    // No text of PostgreSQL has a zero byte.
    text += `${bytes.toString('latin1', start, endOf(bytes, from, end, sameness))}\0`
  }
  return text
}

function keyless(table: PreparedTable): Fault {
  return new Fault('protocol', `apply changes to ${table.shown}: a change lacks the key of its row`)
}

/** In this order the statements of a layer run. */
const order = { delete: 0, update: 1, move: 2, insert: 3 } as const
type Rank = 0 | 1 | 2 | 3

type Layer = {
  readonly deletes: RowChange[]
  readonly updates: Map<string, RowChange[]>
  readonly moves: RowChange[]
  readonly inserts: RowChange[]
}

/** Where the last change of a key is. */
type Place = { layer: number; rank: Rank; readonly list: RowChange[]; readonly index: number }

/**
 * Gathers changes into as few statements as keep the order within each key: a statement touches each row once at most, and what
 * touches it again is in a later one, or takes the earlier one's place. Between rows the order is lost: a value that wanders from
 * one row to another in a second unique key may be in two of them for a while, which the server then refuses.
 */
export function planChanges(
  changes: readonly (RowRun | Truncation)[],
  prepared: Prepared,
): readonly Step[] {
  const steps: Step[] = []
  const tables = new Map<string, TablePlan>()
  const finish = () => {
    for (const plan of tables.values()) steps.push(...plan.steps())
    tables.clear()
  }
  for (const change of changes) {
    if (change.kind === 'truncate') {
      finish()
      steps.push(truncateStep(change, prepared))
      continue
    }
    const table = prepared(change.relation)
    let plan = tables.get(table.shown)
    // Two forms of one table in one transaction: its rows changed, and their order tells more than their keys.
    if (plan && plan.table !== table) {
      finish()
      plan = undefined
    }
    const mine = plan ?? new TablePlan(table)
    tables.set(table.shown, mine)
    eachRow(change, table, (row) => mine.add(row))
  }
  finish()
  return steps
}

export function truncateStep(truncation: Truncation, prepared: Prepared): Step {
  const tables = truncation.relations.map(prepared)
  return { kind: 'truncate', tables, restart: truncation.restartIdentity }
}

class TablePlan {
  readonly table: PreparedTable
  readonly #layers: Layer[] = []
  readonly #places = new Map<string, Place>()
  readonly #ordered: Step[] = []

  constructor(table: PreparedTable) {
    this.table = table
  }

  add(change: RowChange): void {
    if (!this.table.comparable) return this.#addInOrder(change)
    if (change.kind === 'insert') this.#place(change, keyText(change, change.after), order.insert)
    else if (change.moves) this.#move(change)
    else {
      const rank = change.kind === 'delete' ? order.delete : order.update
      this.#place(change, keyText(change, change.before), rank)
    }
  }

  steps(): readonly Step[] {
    const { table } = this
    const steps: Step[] = [...this.#ordered]
    const push = (kind: RowRun['kind'] | 'single', changes: readonly RowChange[]) => {
      if (changes.length > 0) steps.push({ kind, table, changes })
    }
    for (const layer of this.#layers) {
      push('delete', layer.deletes)
      for (const updates of layer.updates.values()) push('update', updates)
      push('single', layer.moves)
      push('insert', layer.inserts)
    }
    return steps
  }

  // Keys cannot be told apart, or there is none: inserts that follow one another may go together, nothing else.
  #addInOrder(change: RowChange): void {
    const kind = change.kind === 'insert' ? 'insert' : 'single'
    const last = this.#ordered.at(-1)
    if (last && last.kind === kind) (last.changes as RowChange[]).push(change)
    else this.#ordered.push({ kind, table: this.table, changes: [change] })
  }

  #place(change: RowChange, key: string, rank: Rank): void {
    const last = this.#places.get(key)
    if (last && this.#replaces(last, change)) return
    const layer = last === undefined ? 0 : rank > last.rank ? last.layer : last.layer + 1
    const list = this.#list(layer, rank, change.absent)
    this.#places.set(key, { layer, rank, list, index: list.length })
    list.push(change)
  }

  /** A row that is written anew, all of it: of the two writings the last one is enough. */
  #replaces(last: Place, change: RowChange): boolean {
    if (change.kind !== 'update') return false
    const before = last.list[last.index]
    if (!before || change.absent !== before.absent) return false
    if (last.rank === order.update) {
      last.list[last.index] = change
      return true
    }
    if (last.rank !== order.insert || change.absent !== '') return false
    last.list[last.index] = { ...change, kind: 'insert', before: -1 }
    return true
  }

  #move(change: RowChange): void {
    const keys = [keyText(change, change.before), keyText(change, change.after)]
    const layers = keys.map((key) => {
      const last = this.#places.get(key)
      return last === undefined ? 0 : order.move > last.rank ? last.layer : last.layer + 1
    })
    const layer = Math.max(...layers)
    const list = this.#list(layer, order.move, '')
    for (const key of keys) {
      this.#places.set(key, { layer, rank: order.move, list, index: list.length })
    }
    list.push(change)
  }

  #list(layer: number, rank: Rank, absent: string): RowChange[] {
    while (this.#layers.length <= layer) {
      this.#layers.push({ deletes: [], updates: new Map(), moves: [], inserts: [] })
    }
    const at = this.#layers[layer]
    assert(at, 'a layer that was made is there')
    if (rank === order.delete) return at.deletes
    if (rank === order.move) return at.moves
    if (rank === order.insert) return at.inserts
    const updates = at.updates.get(absent) ?? []
    at.updates.set(absent, updates)
    return updates
  }
}
