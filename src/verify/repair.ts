import { isFault } from '#base/faults'
import type { Edit } from '#change/digest'
import { compareRows, keyText, surpluses } from './differences.ts'
import type { RowDifference, TableResult } from './table-result.ts'
import { both, type Sides } from './work.ts'

/** Statements that are kept for a plan. */
const statementsMax = 100_000
const statementsMaxBytes = 64 * 1024 * 1024

/** What is done about differences: statements for the operator, or rows made equal on the target. */
export class Repair {
  readonly kind: 'plan' | 'apply'
  readonly #statements: string[] = []
  #bytes = 0
  #more = false

  constructor(kind: 'plan' | 'apply') {
    this.kind = kind
  }

  /** Those of a plan, in order, and whether there would be more. */
  get plan(): { readonly statements: readonly string[]; readonly more: boolean } {
    return { statements: this.#statements, more: this.#more }
  }

  /** Takes differences of one table, all of them looked at again before. */
  async take(
    sides: Sides,
    result: TableResult,
    differences: readonly RowDifference[],
    signal: AbortSignal,
  ): Promise<void> {
    const { pair } = result
    if (pair.unrepairable !== undefined) {
      result.reason(pair.unrepairable)
      return
    }
    const edits: [RowDifference, Edit][] = []
    for (const one of differences) {
      const edit = toEdit(result, one)
      if (edit) edits.push([one, edit])
      else result.reason('only computed columns differ: the expressions do')
    }
    if (edits.length === 0) return
    if (this.kind === 'plan') {
      const all = edits.map(([, edit]) => edit)
      for (const kind of ['delete', 'update', 'insert'] as const) {
        for (const edit of all) if (edit.kind === kind) this.#write(sides, result, edit)
      }
      return
    }
    await apply(sides, result, edits, signal)
  }

  #write(sides: Sides, result: TableResult, edit: Edit): void {
    for (const sql of sides.target.statements(result.pair.target, edit)) {
      this.#bytes += sql.length
      if (this.#statements.length >= statementsMax || this.#bytes > statementsMaxBytes) {
        this.#more = true
        return
      }
      this.#statements.push(sql)
    }
  }
}

function toEdit(result: TableResult, one: RowDifference): Edit | undefined {
  const { kind, key, rows, before = '', source, changed } = one
  const { columns } = result.pair.target
  if (kind === 'extra') return { kind: 'delete', key, before, rows }
  if (!source) return undefined
  if (kind === 'missing') return { kind: 'insert', cells: source, rows }
  const written = changed.filter((at) => columns[at]?.generated === false)
  if (written.length === 0) return undefined
  return { kind: 'update', key, before, cells: source, changed: written }
}

type Planned = readonly (readonly [RowDifference, Edit])[]

/** In one transaction; where values of unique keys stand in each other's way, by deleting first; else each row alone. */
async function apply(
  sides: Sides,
  result: TableResult,
  planned: Planned,
  signal: AbortSignal,
): Promise<void> {
  for (const replace of [false, true]) {
    const done = await attempt(sides, result, planned, { replace, signal })
    if (typeof done !== 'string') return
    if (planned.length === 1 && replace) result.reason(done)
  }
  if (planned.length === 1) return
  for (const one of planned) await apply(sides, result, [one], signal)
}

/** Undefined when it was done; else why the target refused. */
async function attempt(
  sides: Sides,
  result: TableResult,
  planned: Planned,
  options: { readonly replace: boolean; readonly signal: AbortSignal },
): Promise<string | undefined> {
  const { pair } = result
  const edits = planned.map(([, edit]) => edit)
  let changed: readonly number[] = []
  try {
    changed = await sides.target.apply(pair.target, edits, options)
  } catch (error) {
    options.signal.throwIfAborted()
    if (!isFault(error, 'engine', 'different', 'conflict', 'denied')) throw error
    return error.message
  }
  const left = new Set(changed)
  if (left.size > 0) result.reason('rows that changed meanwhile were left as they are')
  await proveRepaired(
    sides,
    result,
    planned.filter((_one, at) => !left.has(at)),
    options.signal,
  )
  return undefined
}

/** Rows that were repaired are compared once more. */
async function proveRepaired(
  sides: Sides,
  result: TableResult,
  planned: Planned,
  signal: AbortSignal,
): Promise<void> {
  const { pair } = result
  const rows = planned.reduce((sum, [{ rows: count }]) => sum + count, 0)
  const keys = planned.flatMap(([{ key }]) => (key ? [key] : []))
  if (keys.length < planned.length) {
    result.repaired += await provenByDigests(sides, result, planned, signal)
    return
  }
  const which = { kind: 'keys', keys } as const
  const [from, to] = await both(
    sides.source.rows(pair.source, which, { signal }),
    sides.target.rows(pair.target, which, { signal }),
  )
  const byKey = (list: typeof from) =>
    new Map(
      list.map((row) => [
        keyText(pair.source.key.map((at) => row.cells[at] ?? Buffer.alloc(0))),
        row,
      ]),
    )
  const [source, target] = [byKey(from), byKey(to)]
  const unequal = keys.filter((key) => {
    const text = keyText(key)
    return compareRows(pair, source.get(text), target.get(text), key).length > 0
  })
  result.repaired += rows - unequal.length
  if (unequal.length > 0) result.reason('rows still differ after their repair: they are in use')
}

/** Rows without a key: those of which both sides have as many. */
async function provenByDigests(
  { source, target }: Sides,
  result: TableResult,
  planned: Planned,
  signal: AbortSignal,
): Promise<number> {
  const { pair } = result
  const all = planned.map(([one]) => one)
  const rowsOf = (list: readonly RowDifference[]) => list.reduce((sum, { rows }) => sum + rows, 0)
  // Equal values may have other digests there.
  if (pair.loose.length > 0) return rowsOf(all)
  const digestsOf = ({ before, after }: RowDifference) =>
    [before, after].filter((digest) => digest !== undefined)
  const digests = [...new Set(all.flatMap(digestsOf))]
  const [from, to] = await both(
    source.count(pair.source, digests, { signal }),
    target.count(pair.target, digests, { signal }),
  )
  const unequal = new Set(surpluses(from, to).map(({ digest }) => digest))
  const proven = all.filter((one) => !digestsOf(one).some((digest) => unequal.has(digest)))
  if (proven.length < all.length) {
    result.reason('rows still differ after their repair: they are in use')
  }
  return rowsOf(proven)
}
