import type { Cell, DigestTable, Edit, Key } from '#change/digest'
import { Fault } from '#base/faults'
import type { Session } from '../connection.ts'
import { quoteName, quotePath } from '../rows-sql.ts'
import { digestSql, type Encoding, literalSql } from './forms.ts'
import { keysSql } from './where.ts'

type How = {
  /** Only when the row is still what it was. */
  readonly guarded: boolean
  readonly encoding: Encoding
}

/** The statements of an edit, for an operator to run. */
export function editSql(table: DigestTable, edit: Edit, encoding: Encoding): readonly string[] {
  const how = { guarded: false, encoding }
  switch (edit.kind) {
    case 'insert':
      return Array.from({ length: edit.rows }, () => insertSql(table, edit.cells))
    case 'delete':
      return [deleteSql(table, edit, how)]
    case 'update':
      return updateSql(table, edit, how)
    default:
      return edit satisfies never
  }
}

function deleteSql(table: DigestTable, edit: Exclude<Edit, { kind: 'insert' }>, how: How): string {
  const rows = edit.kind === 'delete' ? edit.rows : 1
  return `delete from only ${quotePath(table.name)} where ${rowSql(table, edit, rows, how)}`
}

function updateSql(
  table: DigestTable,
  edit: Extract<Edit, { kind: 'update' }>,
  how: How,
): readonly string[] {
  const set = edit.changed.flatMap((at) => {
    const column = table.columns[at]
    if (!column || column.generated) return []
    return [`${quoteName(column.name)} = ${literalSql(column, edit.cells[at] ?? null)}`]
  })
  if (set.length === 0) return []
  const where = rowSql(table, edit, 1, how)
  return [`update only ${quotePath(table.name)} set ${set.join(', ')} where ${where}`]
}

function insertSql(table: DigestTable, cells: readonly Cell[]): string {
  const written = table.columns.flatMap((column, at) =>
    column.generated
      ? []
      : [[quoteName(column.name), literalSql(column, cells[at] ?? null)] as const],
  )
  const into = quotePath(table.name)
  if (written.length === 0) return `insert into ${into} default values`
  const names = written.map(([name]) => name).join(', ')
  const values = written.map(([, value]) => value).join(', ')
  return `insert into ${into} (${names}) overriding system value values (${values})`
}

function rowSql(
  table: DigestTable,
  { key, before }: { readonly key: Key | undefined; readonly before: string },
  rows: number,
  { guarded, encoding }: How,
): string {
  const same = `${digestSql(table.columns, encoding)} = '${before}'`
  if (!key) {
    const name = quotePath(table.name)
    return `ctid = any (array(select ctid from only ${name} where ${same} limit ${rows}))`
  }
  return guarded ? `${keysSql(table, [key])} and ${same}` : keysSql(table, [key])
}

type Options = {
  readonly signal: AbortSignal
  readonly replace: boolean
  readonly encoding: Encoding
}

/** In one transaction: see `Digester.apply`. */
export async function applyEdits(
  session: Session,
  table: DigestTable,
  edits: readonly Edit[],
  options: Options,
): Promise<readonly number[]> {
  const { replace, encoding, signal } = options
  const changed = new Set<number>()
  const how = { guarded: true, encoding }
  const run = async (index: number, kind: Edit['kind'], statements: readonly string[]) => {
    const doing = `${kind} a row of ${table.name.join('.')}`
    for (const sql of statements) {
      const rows = await session.query(`${sql} returning 1 as done`, { signal, doing })
      if (rows.length > 0) continue
      if (kind === 'insert') throw new Fault('different', `${doing}: the target took no row`)
      changed.add(index)
    }
  }
  await session.query('begin', { signal })
  try {
    for (const [index, edit] of edits.entries()) {
      if (edit.kind === 'insert' || (edit.kind === 'update' && !replace)) continue
      await run(index, 'delete', [deleteSql(table, edit, how)])
    }
    for (const [index, edit] of edits.entries()) {
      if (edit.kind === 'update' && !replace)
        await run(index, 'update', updateSql(table, edit, how))
    }
    for (const [index, edit] of edits.entries()) {
      if (edit.kind === 'delete' || changed.has(index)) continue
      if (edit.kind === 'insert') await run(index, 'insert', editSql(table, edit, encoding))
      else if (replace) await run(index, 'insert', [insertSql(table, edit.cells)])
    }
    await session.query('commit', { signal })
  } catch (error) {
    if (session.alive && !signal.aborted) await session.query('rollback', { signal })
    throw error
  }
  return [...changed]
}
