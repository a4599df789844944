import { Fault } from '#base/faults'
import type { Cell, DigestColumn, DigestTable, Edit, Key } from '#change/digest'
import type { Session } from '../protocol/session.ts'
import { quoteName, quoteNames } from '../sql.ts'
import { digestSql, literalSql } from './forms.ts'
import { keysSql } from './where.ts'

/** The statements of an edit, for an operator to run. */
export function editSql(table: DigestTable, edit: Edit): readonly string[] {
  switch (edit.kind) {
    case 'insert':
      return Array.from({ length: edit.rows }, () => insertSql(table, edit.cells))
    case 'delete':
      return [deleteSql(table, edit, false)]
    case 'update':
      return updateSql(table, edit, false)
    default:
      return edit satisfies never
  }
}

function deleteSql(
  table: DigestTable,
  edit: Exclude<Edit, { kind: 'insert' }>,
  guarded: boolean,
): string {
  const limit = edit.key ? '' : ` LIMIT ${edit.kind === 'delete' ? edit.rows : 1}`
  return `DELETE FROM ${nameSql(table)} WHERE ${rowSql(table, edit, guarded)}${limit}`
}

function updateSql(
  table: DigestTable,
  edit: Extract<Edit, { kind: 'update' }>,
  guarded: boolean,
): readonly string[] {
  const set = table.columns.flatMap((column, at) => setSql(column, edit, at))
  if (set.length === 0) return []
  const limit = edit.key ? '' : ' LIMIT 1'
  return [
    `UPDATE ${nameSql(table)} SET ${set.join(', ')} WHERE ${rowSql(table, edit, guarded)}${limit}`,
  ]
}

/** A column that updates itself stays as it is when it is set to itself. */
function setSql(
  column: DigestColumn,
  edit: Extract<Edit, { kind: 'update' }>,
  at: number,
): readonly string[] {
  if (column.generated) return []
  const name = quoteName(column.name)
  if (edit.changed.includes(at)) return [`${name} = ${literalSql(column, edit.cells[at] ?? null)}`]
  return /^(?:timestamp|datetime)/.test(column.type) ? [`${name} = ${name}`] : []
}

function insertSql(table: DigestTable, cells: readonly Cell[]): string {
  const written = table.columns.flatMap((column, at) =>
    column.generated
      ? []
      : [[quoteName(column.name), literalSql(column, cells[at] ?? null)] as const],
  )
  const names = written.map(([name]) => name).join(', ')
  return `INSERT INTO ${nameSql(table)} (${names}) VALUES (${written.map(([, value]) => value).join(', ')})`
}

function rowSql(
  table: DigestTable,
  edit: { readonly key: Key | undefined; readonly before: string },
  guarded: boolean,
): string {
  const same = `${digestSql(table.columns)} = '${edit.before}'`
  if (!edit.key) return same
  return guarded ? `${keysSql(table, [edit.key])} AND ${same}` : keysSql(table, [edit.key])
}

function nameSql(table: DigestTable): string {
  const [database = '', name = ''] = table.name
  return quoteNames(database, name)
}

type Options = { readonly signal: AbortSignal; readonly replace: boolean }

/** In one transaction: see `Digester.apply`. */
export async function applyEdits(
  session: Session,
  table: DigestTable,
  edits: readonly Edit[],
  options: Options,
): Promise<readonly number[]> {
  const changed = new Set<number>()
  const { replace, signal } = options
  const run = async (index: number, kind: Edit['kind'], statements: readonly string[]) => {
    const doing = `${kind} a row of ${table.name.join('.')}`
    for (const sql of statements) {
      const { affectedRows, warnings } = await session.query(sql, { signal }, doing)
      if (kind !== 'insert' && affectedRows === 0) changed.add(index)
      // Without a strict mode the server cuts what it cannot hold.
      if (warnings > 0 && kind !== 'delete') await refuseCut(session, doing, signal)
    }
  }
  await session.query('START TRANSACTION', { signal })
  try {
    for (const [index, edit] of edits.entries()) {
      if (edit.kind === 'insert' || (edit.kind === 'update' && !replace)) continue
      await run(index, 'delete', [deleteSql(table, edit, true)])
    }
    for (const [index, edit] of edits.entries()) {
      if (edit.kind === 'update' && !replace)
        await run(index, 'update', updateSql(table, edit, true))
    }
    for (const [index, edit] of edits.entries()) {
      if (edit.kind === 'delete' || changed.has(index)) continue
      if (edit.kind === 'insert') await run(index, 'insert', editSql(table, edit))
      else if (replace) await run(index, 'insert', [insertSql(table, edit.cells)])
    }
    await session.query('COMMIT', { signal })
  } catch (error) {
    if (session.alive) await session.query('ROLLBACK', { signal })
    throw error
  }
  return [...changed]
}

const cutNumbers = new Set(['1264', '1265', '1292', '1366', '1406', '3140'])

async function refuseCut(session: Session, doing: string, signal: AbortSignal): Promise<void> {
  const rows = await session.texts('SHOW WARNINGS', { signal })
  const cut = rows.find(([, number]) => cutNumbers.has(number ?? ''))
  if (!cut) return
  throw new Fault('different', `${doing}: the target would change the value: ${cut[2] ?? ''}`)
}
