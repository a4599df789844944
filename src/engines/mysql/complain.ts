import { Fault } from '#base/faults'
import type { ColumnLoad } from './catalog.ts'
import type { Session } from './protocol/session.ts'
import { quoteNames } from './sql.ts'

/** A table and those of its columns that rows bring, in their order. */
export type LoadTable = {
  readonly database: string
  readonly name: string
  readonly columns: readonly { readonly name: string; readonly load: ColumnLoad }[]
}

/** What the server says of an ENUM's empty error value, among others. */
const truncatedNumber = 1265
/** Warnings of what a later version will refuse: nothing happened to a value. */
const deprecations = new Set([1287, 1681, 3719, 3778, 6414])

/** Whatever the server changed of a value while it took it in is damage: asks what its warnings were, and refuses. */
export async function complain(
  session: Session,
  table: LoadTable,
  warnings: number,
  signal: AbortSignal,
): Promise<void> {
  const rows = await session.texts('SHOW WARNINGS', { signal })
  const enums = table.columns.filter((column) => column.load === 'enum')
  const harmless = (number: string | null | undefined, text: string) =>
    Number(number) === truncatedNumber && enums.some(({ name }) => text.includes(`'${name}'`))
  const bad = rows
    .filter(([level, number, text]) => level !== 'Note' && !harmless(number, text ?? ''))
    .filter(([, number]) => !deprecations.has(Number(number)))
    .slice(0, 5)
  if (bad.length === 0 && rows.length >= warnings) return
  const told = bad.map(([, number, text]) => `${text} (${number})`).join('; ')
  const said = told || `the server told ${rows.length} of ${warnings} warnings`
  throw new Fault('engine', `load ${quoteNames(table.database, table.name)}: ${said}`)
}
