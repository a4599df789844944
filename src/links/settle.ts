import type { LoadedChunk } from '#change/copy'

/** What becomes of a table when a reader is opened: SPEC.md has the table. */
export type Settled =
  | { readonly kind: 'fresh' }
  | { readonly kind: 'whole' }
  | { readonly kind: 'goes-on'; readonly mixed: boolean }
  | { readonly kind: 'anew' }

/** Compares the marks of one table with its plan. Marks alone tell what is on the target; the plan tells whether that is all. */
export function settle(table: {
  /** Indexes of its recorded chunks; undefined when it was not planned yet. */
  readonly planned: readonly number[] | undefined
  readonly marks: readonly LoadedChunk[]
  /** Its chunks are ranges of an identifying key. */
  readonly byKey: boolean
  /** The stamp of a run that brought rows; undefined when nothing tells whether the source stood still. */
  readonly stampOf: (run: number) => string | undefined
  readonly stamp: string | undefined
}): Settled {
  const { planned, marks, byKey, stampOf, stamp } = table
  if (planned?.length === 0) return { kind: marks.length === 0 ? 'whole' : 'anew' }
  if (marks.length === 0) return { kind: 'fresh' }
  const known = new Set(planned)
  if (marks.some((mark) => !known.has(mark.index))) return { kind: 'anew' }
  if (new Set(marks.map((mark) => mark.index)).size === known.size) return { kind: 'whole' }
  const still = marks.every((mark) => stamp !== undefined && stampOf(mark.run) === stamp)
  if (still) return { kind: 'goes-on', mixed: false }
  return byKey ? { kind: 'goes-on', mixed: true } : { kind: 'anew' }
}
