import { cellAbsent, cellNull, type Relation, type RowRun } from '#change/batch'
import type {
  TargetColumn,
  TargetForm,
  TargetKey,
} from '../../src/engines/postgres/apply/catalog.ts'
import type { Sameness } from '../../src/engines/postgres/apply/types.ts'

/** A value as text, NULL, or that an image does not have it. */
export type Cell = string | null | undefined

/** A table whose first column is its key, and of a type; the others are text. */
export function relationOf(columns: readonly string[], type: string): Relation {
  return {
    id: 1,
    name: ['public', 't'],
    columns: columns.map((name, index) => ({
      name,
      type: index === 0 ? type : 'text',
      code: 0,
      modifier: -1,
      identifies: index === 0,
    })),
    form: 'pg/text',
    before: 'key',
  }
}

/** The same table on the target; `second` names another column that is unique. */
export function formOf(
  columns: readonly string[],
  type: string,
  sameness: Sameness,
  second?: string,
): TargetForm {
  const all = columns.map(
    (name, index): TargetColumn => ({
      name,
      number: index + 1,
      type: index === 0 ? type : 'text',
      baseType: index === 0 ? type : 'text',
      cast: index === 0 ? type : 'text',
      sameness: index === 0 ? sameness : 'bytes',
      castable: true,
      notNull: index === 0,
      hasDefault: false,
      generated: false,
      identity: undefined,
    }),
  )
  const key = (column: TargetColumn): TargetKey => ({
    name: `${column.name}_key`,
    primary: column.number === 1,
    immediate: true,
    identifies: column.number === 1,
    columns: [{ column, equals: '=', sameness: column.sameness }],
    nullsConflict: false,
  })
  const unique = all.filter((column) => column.number === 1 || column.name === second)
  return {
    name: ['public', 't'],
    only: 'only "public"."t"',
    partitioned: false,
    columns: all,
    keys: unique.map(key),
  }
}

/** A run of these images, as a log has it. */
export function runOf(
  relation: Relation,
  kind: RowRun['kind'],
  images: readonly (readonly Cell[])[],
): RowRun {
  const parts: Buffer[] = []
  const cells: number[] = []
  let at = 0
  for (const cell of images.flat()) {
    if (cell === null || cell === undefined) {
      cells.push(cell === null ? cellNull : cellAbsent, 0)
      continue
    }
    const part = Buffer.from(cell)
    parts.push(part)
    cells.push(at, at + part.length)
    at += part.length
  }
  const rows = images.length / (kind === 'update' ? 2 : 1)
  return { kind, relation, rows, bytes: Buffer.concat(parts), cells: Int32Array.from(cells) }
}

/** What a cell of a run says. */
export function textOf(run: RowRun, at: number): Cell {
  const [from = cellAbsent, end = 0] = [run.cells[at], run.cells[at + 1]]
  if (from === cellAbsent) return undefined
  return from === cellNull ? null : run.bytes.toString('utf8', from, end)
}
