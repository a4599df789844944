import type { ColumnForms, Description, DigestColumn, DigestTable } from '#change/digest'
import type { ColumnShape, KeyShape, ObjectName, TableShape } from '#change/schema'

/** A row of JSON kept as text on one side: equal values may be spelled in other ways. */
const looseForm = 'json/text'

/** Two tables that are compared row by row. */
export type Pair = {
  readonly name: ObjectName
  readonly source: DigestTable
  readonly target: DigestTable
  /** Both keep the key in an order of the same name: ranges of it are compared. */
  readonly walks: boolean
  /** Indexes of columns that are compared by value where their text differs. */
  readonly loose: readonly number[]
  /** Columns of both that have no form in common. */
  readonly uncompared: readonly string[]
  readonly rowsEstimate: number
  readonly rowBytes: number
  readonly unrepairable: string | undefined
}

export type Described = { readonly shape: TableShape; readonly said: Description }

/** Agrees on columns, forms and a key. */
export function pairTables(source: Described, target: Described): Pair {
  const there = new Map(target.shape.columns.map((column, at) => [column.name, at]))
  const columns: [DigestColumn, DigestColumn][] = []
  const orders: (string | undefined)[] = []
  const uncompared: string[] = []
  for (const [at, own] of source.shape.columns.entries()) {
    const index = there.get(own.name)
    const other = index === undefined ? undefined : target.shape.columns[index]
    if (index === undefined || !other) continue
    const [from, to] = [source.said.columns[at], target.said.columns[index]]
    const form = from?.forms.find((name) => to?.forms.includes(name))
    if (form === undefined) {
      uncompared.push(own.name)
      continue
    }
    columns.push([toColumn(own, form), toColumn(other, form)])
    orders.push(sameOrder(from, to))
  }
  const history = source.said.history || target.said.history
  const key = history ? undefined : commonKey(source.shape, target.shape, columns)
  const walks = key !== undefined && key.columns.every((at) => orders[at] !== undefined)
  const side = (which: 0 | 1): DigestTable => ({
    name: [source, target][which]?.shape.name ?? [],
    columns: columns.map((both) => both[which]),
    key: key?.columns ?? [],
    index: walks ? key.names[which] : undefined,
    history: [source, target][which]?.said.history ?? false,
  })
  const { rowsEstimate, sizeBytes } = source.shape
  return {
    name: source.shape.name,
    source: side(0),
    target: side(1),
    walks,
    loose: columns.flatMap(([{ form }], at) => (form === looseForm ? [at] : [])),
    uncompared,
    rowsEstimate: Math.max(rowsEstimate, target.shape.rowsEstimate, 0),
    rowBytes: Math.max(1, sizeBytes / Math.max(1, rowsEstimate)),
    unrepairable: target.said.unrepairable ?? lacking(source.shape, target.shape, uncompared),
  }
}

function lacking(
  source: TableShape,
  target: TableShape,
  uncompared: readonly string[],
): string | undefined {
  const names = (shape: TableShape) => new Set(shape.columns.map(({ name }) => name))
  const [from, to] = [names(source), names(target)]
  if (uncompared.length === 0 && from.symmetricDifference(to).size === 0) return undefined
  return 'its columns are not those of the source'
}

function toColumn(column: ColumnShape, form: string): DigestColumn {
  const { name, type, charset, collation, generated, nullable } = column
  return { name, type, charset, collation, generated, nullable, form }
}

function sameOrder(from: ColumnForms | undefined, to: ColumnForms | undefined): string | undefined {
  return from?.order !== undefined && from.order === to?.order ? from.order : undefined
}

/** The first key of the source that names rows on both sides. */
function commonKey(
  source: TableShape,
  target: TableShape,
  columns: readonly (readonly [DigestColumn, DigestColumn])[],
): { readonly columns: readonly number[]; readonly names: readonly [string, string] } | undefined {
  const identifying = (keys: readonly KeyShape[]) => keys.filter((key) => key.identifies)
  for (const key of identifying(source.keys)) {
    const same = identifying(target.keys).find(
      (other) => JSON.stringify(other.columns) === JSON.stringify(key.columns),
    )
    const at = key.columns.map((name) => columns.findIndex(([own]) => own.name === name))
    // A value that is compared loosely, or not at all, names no row.
    if (!same || at.length === 0 || at.some((index) => index < 0)) continue
    if (at.some((index) => columns[index]?.[0].form === looseForm)) continue
    return { columns: at, names: [key.name, same.name] }
  }
  return undefined
}
