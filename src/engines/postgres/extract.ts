import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Fault, isFault } from '#base/faults'
import { eachLimit } from '#base/tasks'
import type { RestoreRequest, RestoreResult } from '#engines'
import { afterRows, beforeRows, listTables, type Statement, type Table } from './catalog.ts'
import {
  readDatabaseRights,
  readLeftOut,
  readRights,
  type RightStatement,
} from './catalog-rights.ts'
import {
  type Address,
  openSession,
  openWire,
  parseAddress,
  type Session,
  withDatabase,
} from './connection.ts'
import { ScratchCluster } from './scratch.ts'
import { parseSelector, type Selector } from './selection.ts'

/**
 * Brings tables or databases back into a running server: the base and its log are recovered in a scratch server, and what
 * was asked for is copied from there. A database keeps its name, unless the URL names one and a single database is asked
 * for. A table that is there already must be empty, or is emptied with `force`; one that is not is made.
 */
export async function restoreOnly(request: RestoreRequest): Promise<RestoreResult> {
  if (!/^postgres(?:ql)?:\/\//.test(request.to)) {
    throw new Fault('usage', `restore a part to ${request.to}: a part goes into a running server`, {
      hint: 'Name it with --to postgres://...',
    })
  }
  const selectors = request.only.map(parseSelector)
  const target = parseAddress(request.to)
  const directory = await mkdtemp(path.join(tmpdir(), 'redoubt-scratch-'))
  try {
    // Before an hour of recovery: whether the target can be reached at all.
    await using probe = await openSession(target, request)
    await probe.query('select 1', request)
    await using cluster = await ScratchCluster.restore(request, directory)
    const next = await copySelected(request, cluster, selectors, target)
    return { ...cluster.result, next, url: target.shown }
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

async function copySelected(
  request: RestoreRequest,
  cluster: ScratchCluster,
  selectors: readonly Selector[],
  target: Address,
): Promise<string[]> {
  const { signal } = request
  const all = await cluster.databases(signal)
  const chosen = all.filter(
    (name) => name !== 'template1' && selectors.some((one) => one.database.test(name)),
  )
  const named = /^[a-z]+:\/\/[^/?]*\/[^?]/.test(request.to)
  const unused = new Set(selectors)
  const next: string[] = []
  for (const database of chosen) {
    const mine = selectors.filter((one) => one.database.test(database))
    await using source = await cluster.session(database, signal)
    const tables = (await listTables(source, signal)).filter((table) =>
      mine.some((one) => {
        const fits = one.schema.test(table.schema) && one.table.test(table.name)
        if (fits || one.whole) unused.delete(one)
        return fits
      }),
    )
    for (const one of mine) if (one.whole) unused.delete(one)
    const whole = mine.some((one) => one.whole)
    if (tables.length === 0 && !whole) continue
    const into = withDatabase(target, named && chosen.length === 1 ? target.database : database)
    const isNew = await makeDatabase(target, source, into.database, signal)
    const work = { cluster, database, source, tables, whole, into, isNew }
    next.push(...(await copyDatabase(request, work)))
  }
  const [missed] = unused
  if (missed) {
    throw new Fault('missing', `restore ${missed.pattern}: nothing of that name was there then`, {
      hint: `The databases are ${all.join(', ')}.`,
    })
  }
  return next
}

type Work = {
  readonly cluster: ScratchCluster
  readonly database: string
  readonly source: Session
  readonly tables: readonly Table[]
  readonly whole: boolean
  readonly into: Address
  /** The database was made by this restore. */
  readonly isNew: boolean
}

async function makeDatabase(
  target: Address,
  source: Session,
  name: string,
  signal: AbortSignal,
): Promise<boolean> {
  await using session = await openSession(target, { signal })
  const there = await session.query('select 1 from pg_database where datname = $1', {
    signal,
    values: [name],
  })
  if (there.length > 0) return false
  const [facts] = await source.query(
    `select quote_ident($1) as name, pg_encoding_to_char(encoding) as encoding, quote_literal(datcollate) as collate,
       quote_literal(datctype) as ctype from pg_database where datname = current_database()`,
    { signal, values: [name] },
  )
  const plain = `create database ${facts?.['name']} template template0 encoding '${facts?.['encoding']}'`
  const sql = `${plain} lc_collate ${facts?.['collate']} lc_ctype ${facts?.['ctype']}`
  await session.query(sql, { signal, doing: `make database ${name}` })
  return true
}

async function copyDatabase(request: RestoreRequest, work: Work): Promise<string[]> {
  const { signal, progress, parallel } = request
  const { source, tables, whole, into } = work
  await using session = await openSession(into, { signal })
  // Functions are taken over as they are, before what they speak of is there.
  await session.query('set check_function_bodies = off', { signal })
  const present = await presentTables(session, tables, signal)
  await checkPresent(session, [...present], request)
  progress.phase = `make the tables of ${into.database}`
  const missing = tables.filter((table) => !present.has(table.full))
  const made = new Set<string>(work.isNew ? ['database'] : [])
  const before = await beforeRows(source, missing, whole, signal)
  const undone = await runAll(session, before, { made, mayExist: isShared, signal })
  const unmade = new Set(undone.map((one) => one.statement.what))
  const lost = missing.find((table) => unmade.has(`table ${table.full}`))
  if (lost) {
    const why = undone.find((one) => one.statement.what === `table ${lost.full}`)?.said
    throw new Fault('engine', `make table ${lost.full} in ${into.database}: ${why}`)
  }
  progress.phase = `copy rows into ${into.database}`
  progress.totalItems = (progress.totalItems ?? 0) + tables.length
  const withRows = tables.filter((table) => table.kind === 'r' && table.columns.length > 0)
  await eachLimit(withRows, Math.max(1, parallel), signal, async (table, inner) => {
    progress.current = table.full
    await copyTable(work, table, present.has(table.full), inner, (size) => {
      progress.doneBytes += size
    })
    progress.doneItems += 1
  })
  progress.phase = `make indexes and constraints of ${into.database}`
  const after = await afterRows(source, missing, whole, signal)
  undone.push(...(await runAll(session, after, { made, mayExist: () => false, signal })))
  progress.phase = `give the tables of ${into.database} to their owners`
  const orphans = await giveRights(session, work, missing, made, signal)
  const failed = undone.map(({ statement, said }) => `${statement.what} could not be made: ${said}`)
  const left = whole ? await readLeftOut(source, signal) : []
  const notTaken = left.map((what) => `not taken over: ${what}`)
  const loose = await looseParts(source, missing, signal)
  return [...failed, ...orphans, ...loose, ...notTaken].map((said) => `${into.database}: ${said}`)
}

/** What a table needs and others may use too: where it is there already, it is left as it is. */
function isShared({ what }: Statement): boolean {
  return !what.startsWith('table ')
}

/** Owners, grants and comments of what was made, as far as the roles are there; what is not is said, role by role. */
async function giveRights(
  session: Session,
  { source, whole, into }: Work,
  missing: readonly Table[],
  made: Set<string>,
  signal: AbortSignal,
): Promise<string[]> {
  const rights = [
    ...(await readRights(source, missing, whole, signal)),
    ...(await readDatabaseRights(source, into.database, signal)),
  ]
  const rows = await session.query('select rolname from pg_roles', { signal })
  const roles = new Set(rows.map((row) => row['rolname'] ?? ''))
  const isThere = ({ role }: RightStatement) => role === undefined || roles.has(role)
  const mine = rights.filter(({ about }) => made.has(about))
  const undone = await runAll(session, mine.filter(isThere), { made, mayExist: isShared, signal })
  const lost = Map.groupBy(
    mine.filter((right) => !isThere(right)),
    ({ role }) => role,
  )
  return [
    ...undone.map(({ statement, said }) => `${statement.what} not set: ${said}`),
    ...[...lost].map(([role, all]) => {
      const whats = [...new Set(all.map(({ what }) => what))].join(', ')
      return `no role ${role} is on the target, so it did not get: ${whats}`
    }),
  ]
}

/** Partitions that were brought back without their parents: attaching them is left to the operator. */
async function looseParts(
  source: Session,
  missing: readonly Table[],
  signal: AbortSignal,
): Promise<string[]> {
  const rows = await source.query(
    `select format('alter table %s attach partition %I.%I %s', p.oid::regclass, n.nspname, c.relname,
       pg_get_expr(c.relpartbound, c.oid)) as sql
     from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_inherits i on i.inhrelid = c.oid
     join pg_class p on p.oid = i.inhparent
     where c.relispartition and c.oid = any($1::oid[]) and not p.oid = any($1::oid[])`,
    { signal, values: [missing.map((table) => table.oid)] },
  )
  return rows.map((row) => `a partition came back as a table of its own: ${row['sql']}`)
}

async function presentTables(
  session: Session,
  tables: readonly Table[],
  signal: AbortSignal,
): Promise<Set<string>> {
  const rows = await session.query(
    'select name from unnest($1::text[]) name where to_regclass(name) is not null',
    { signal, values: [tables.map((table) => table.full)] },
  )
  return new Set(rows.map((row) => row['name'] ?? ''))
}

async function checkPresent(
  session: Session,
  names: readonly string[],
  request: RestoreRequest,
): Promise<void> {
  if (request.force) return
  const { signal } = request
  for (const name of names) {
    const rows = await session.query(`select 1 from ${name} limit 1`, { signal })
    if (rows.length === 0) continue
    throw new Fault('refused', `restore ${name}: the table is there and holds rows`, {
      hint: 'Rename it, name another database in --to, or --force to replace its rows.',
    })
  }
}

type Undone = { readonly statement: Statement; readonly said: string }

type Run = {
  /** What was made, by its name in the statements: those about something else are passed over. */
  readonly made: Set<string>
  /** Whether what a statement makes is as good as made where it is there already. */
  readonly mayExist: (statement: Statement) => boolean
  readonly signal: AbortSignal
}

/** Runs statements whose order among each other is not known: what fails is tried again as long as anything succeeds. */
async function runAll(session: Session, list: readonly Statement[], run: Run): Promise<Undone[]> {
  let left = list
  for (;;) {
    const undone: Undone[] = []
    const waiting: Statement[] = []
    for (const statement of left) {
      if (statement.about !== undefined && !run.made.has(statement.about)) {
        waiting.push(statement)
        continue
      }
      const said = await attempt(session, statement, run)
      if (said !== undefined) undone.push({ statement, said })
    }
    // What waits for something that is never made was there before, or is told by what could not be made.
    if (undone.length === 0 || undone.length + waiting.length === left.length) return undone
    left = [...undone.map((one) => one.statement), ...waiting]
  }
}

async function attempt(
  session: Session,
  statement: Statement,
  { made, mayExist, signal }: Run,
): Promise<string | undefined> {
  try {
    await session.query(statement.sql, { signal, doing: 'make it' })
    made.add(statement.what)
    return undefined
  } catch (error) {
    if (!isFault(error) || error.code === 'unreachable') throw error
    return error.code === 'exists' && mayExist(statement) ? undefined : error.message
  }
}

/** Copies the rows of one table: COPY messages of one server are valid for the other. */
async function copyTable(
  work: Work,
  table: Table,
  replace: boolean,
  signal: AbortSignal,
  onBytes: (size: number) => void,
): Promise<void> {
  const { cluster, database, into } = work
  const columns = table.columns.join(', ')
  const source = await openWire(cluster.address(database), { signal })
  const target = await openWire(into, { signal })
  try {
    const reading = `read ${table.full}`
    const writing = `write ${table.full} in ${into.database}`
    await target.query('begin', signal, writing)
    if (replace) await target.query(`truncate ${table.full}`, signal, writing)
    source.sendQuery(`copy ${table.full} (${columns}) to stdout (format binary)`)
    await source.expect(signal, reading, 'H')
    target.sendQuery(`copy ${table.full} (${columns}) from stdin (format binary)`)
    await target.expect(signal, writing, 'G')
    for (;;) {
      const message = await source.expect(signal, reading)
      if (message.type === 'c') break
      if (message.type !== 'd') continue
      onBytes(message.body.length)
      await target.sendSlowly('d', message.body, signal)
    }
    target.send('c')
    await target.finishQuery(signal, writing)
    await source.finishQuery(signal, reading)
    await target.query('commit', signal, writing)
  } finally {
    source.close()
    target.close()
  }
}
