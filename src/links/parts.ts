import type { Position } from '#change'
import type { ApplyTable } from '#change/apply'
import type { Change, Relation, RowRun, Truncation } from '#change/batch'
import type { Since } from './since.ts'

/** Changes that are written in one way. */
export type Part = {
  readonly changes: readonly (RowRun | Truncation)[]
  /** The copy may have brought them already. */
  readonly converge: boolean
}

/** What is to be written of a transaction. */
export type Work = { readonly parts: readonly Part[] }

/** The changes of a transaction that ends at `position`, without those that the copy brought. */
export function partsOf(
  changes: readonly Change[],
  position: Position | undefined,
  since: Since,
): Part[] {
  const parts: { changes: (RowRun | Truncation)[]; converge: boolean }[] = []
  const add = (change: RowRun | Truncation, converge: boolean) => {
    const last = parts.at(-1)
    if (last?.converge === converge) last.changes.push(change)
    else parts.push({ changes: [change], converge })
  }
  for (const change of changes) {
    if (change.kind === 'statement') continue
    if (change.kind === 'truncate') {
      const judged = (relation: Relation) => since.judge(relation, position)
      const relations = change.relations.filter((relation) => judged(relation) !== 'drop')
      const converge = relations.some((relation) => judged(relation) === 'converge')
      if (relations.length > 0) add({ ...change, relations }, converge)
      continue
    }
    const verdict = since.judge(change.relation, position)
    if (verdict !== 'drop') add(change, verdict === 'converge')
  }
  return parts
}

/**
 * Whether the copy has a change already, or some of it, whose foreign keys changed rows of other tables too, of which the log
 * says nothing: a table that was copied before it keeps those rows as they were.
 */
export function hidesCascade(
  changes: readonly Change[],
  position: Position | undefined,
  since: Since,
): boolean {
  if (position === undefined || since.isCopied(position)) return false
  return changes.some(
    (change) =>
      (change.kind === 'update' || change.kind === 'delete') &&
      change.cascades === true &&
      since.judge(change.relation, position) !== 'write',
  )
}

/** Whether nothing else may be under way: a truncation, and rows that are changed and named by nothing. */
export function isBarrier(parts: readonly Part[]): boolean {
  return parts.some(({ changes }) =>
    changes.some(
      (change) =>
        change.kind === 'truncate' ||
        (change.relation.before === 'none' && change.kind !== 'insert'),
    ),
  )
}

/** What a transaction touches, each once. */
export function keysOf(
  parts: readonly Part[],
  tables: ReadonlyMap<Relation, ApplyTable>,
): Uint32Array {
  const keys = new Set<number>()
  for (const { changes } of parts) {
    for (const change of changes) {
      if (change.kind === 'truncate') continue
      for (const key of tables.get(change.relation)?.keys(change) ?? []) keys.add(key)
    }
  }
  return Uint32Array.from(keys)
}

/** What it holds in memory, about. */
export function sizeOf(parts: readonly Part[]): number {
  let bytes = 0
  for (const { changes } of parts) {
    for (const change of changes) {
      if (change.kind !== 'truncate') bytes += bytesOf(change)
    }
  }
  return bytes
}

/** A run's memory is shared with others of its batch: its cells tell its share. */
function bytesOf({ cells }: RowRun): number {
  let bytes = cells.length * 4
  for (let at = 0; at + 1 < cells.length; at += 2) {
    const [from = 0, to = 0] = [cells[at], cells[at + 1]]
    if (from >= 0) bytes += Math.abs(to) - from
  }
  return bytes
}
