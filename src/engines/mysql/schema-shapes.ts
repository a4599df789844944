import type { ColumnShape, KeyShape, TableShape } from '#change/schema'
import type { Table } from './catalog.ts'
import type { Session } from './protocol/session.ts'
import type { NameMap } from './schema-names.ts'
import { quoteText } from './sql.ts'

type Row = readonly (string | null)[]

/** The neutral form of tables whose rows are carried. */
export async function readShapes(
  session: Session,
  tables: readonly Table[],
  names: NameMap,
  signal: AbortSignal,
): Promise<TableShape[]> {
  const shapes: TableShape[] = []
  for (const database of new Set(tables.map((table) => table.database))) {
    const where = `TABLE_SCHEMA = ${quoteText(database)} AND CAST(TABLE_SCHEMA AS BINARY) = CAST(${quoteText(database)} AS BINARY)`
    const columns = Map.groupBy(
      await session.texts(
        `SELECT TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, EXTRA, COLUMN_DEFAULT, CHARACTER_SET_NAME, COLLATION_NAME
         FROM information_schema.COLUMNS WHERE ${where} ORDER BY TABLE_NAME, ORDINAL_POSITION`,
        { signal },
      ),
      (row: Row) => row[0] ?? '',
    )
    const keys = Map.groupBy(
      await session.texts(
        `SELECT TABLE_NAME, INDEX_NAME, COLUMN_NAME, COALESCE(SUB_PART, ''), NULLABLE FROM information_schema.STATISTICS
         WHERE ${where} AND NON_UNIQUE = 0 ORDER BY TABLE_NAME, INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX`,
        { signal },
      ),
      (row: Row) => row[0] ?? '',
    )
    for (const table of tables.filter((one) => one.database === database)) {
      shapes.push({
        name: [database, table.name],
        target: names.object(database, table.name),
        columns: shapeColumns(table, columns.get(table.name) ?? []),
        keys: shapeKeys(keys.get(table.name) ?? []),
        rowsEstimate: table.rowsGuess,
        sizeBytes: table.sizeBytes,
      })
    }
  }
  return shapes
}

/** Those that rows bring, in the order in which they do, and where they stand those that the server computes. */
function shapeColumns(table: Table, rows: readonly Row[]): ColumnShape[] {
  const brought = new Set(table.columns.map((column) => column.name))
  const listed = new Set(rows.map((row) => row[1]))
  // The times of system versioning come last in a row, wherever the table has them.
  const isPeriod = (row: Row) =>
    table.versioned && brought.has(row[1] ?? '') && /GENERATED/i.test(row[4] ?? '')
  const plain = rows.filter((row) => !isPeriod(row)).map((row) => shape(row, brought))
  const period = rows.filter(isPeriod).map((row) => shape(row, brought))
  const hidden = table.columns
    .filter((column) => !listed.has(column.name))
    .map(({ name }) => ({ name, type: 'timestamp(6)', nullable: false, generated: false }))
  return [...plain, ...period, ...hidden]
}

function shape(row: Row, brought: ReadonlySet<string>): ColumnShape {
  const [, name = '', type = '', nullable, , defaultSql, charset, collation] = row
  return {
    name: name ?? '',
    type: type ?? '',
    nullable: nullable === 'YES',
    generated: !brought.has(name ?? ''),
    defaultSql: defaultSql ?? undefined,
    charset: charset ?? undefined,
    collation: collation ?? undefined,
  }
}

function shapeKeys(rows: readonly Row[]): KeyShape[] {
  const keys = Map.groupBy(rows, (row) => row[1] ?? '')
  return [...keys].map(([name, parts]) => ({
    name,
    primary: name === 'PRIMARY',
    columns: parts.map((part) => part[2] ?? ''),
    // Not on a part of a column, on an expression, or on what may be NULL.
    identifies: parts.every((part) => part[2] !== null && part[3] === '' && part[4] !== 'YES'),
  }))
}
