import { Fault, isFault } from '#base/faults'
import type { Log } from '#base/log'
import { retry } from '#base/retry'
import { systemTime } from '#base/time'
import {
  isTransactional,
  hasRows,
  readCatalog,
  type Catalog,
  type Table,
  type Wanted,
} from './catalog.ts'
import type { Flavor } from './flavor.ts'
import { type PartitionIds, readPartitions } from './partitions.ts'
import { choosePinned, pin, pinListed, pinnedMaxMs, readNewest, readTableNames } from './pins.ts'
import type { Endpoint } from './protocol/endpoint.ts'
import { Session } from './protocol/session.ts'
import { readGtids, readLogEnd } from './server.ts'
import { quoteNames } from './sql.ts'

/** How long a lock may be waited for, during which commits pile up behind it. */
const lockWaitSeconds = 2
/** How long a table that somebody locked is waited for while rows are copied. */
export const tableWaitSeconds = 300
const sessionSeconds = 7 * 24 * 3600
const locking = { triesMax: 10, firstDelayMs: 200, delayMaxMs: 5_000 }
/** Tries in a row while a table is just being changed: it is for milliseconds, as a rule. */
const quickTriesMax = 16
const quickDelayMs = 50
/** Attempts without any lock, before commits are blocked for the moment that it takes. */
const lockFreeTries = 10

/** Sessions that all see the data as of one place in the binary log. */
export type Snapshot = AsyncDisposable & {
  readonly catalog: Catalog
  readonly partitions: PartitionIds
  /** Where the binary log stood; undefined where there is none. */
  readonly end: { readonly name: string; readonly offset: number } | undefined
  readonly gtids: string
  readonly timeUs: bigint
  /** How long commits were held up. */
  readonly blockedMs: number
  readonly sessions: readonly Session[]
  /** What the sessions keep as it is until they go back to their savepoint, which they should do by the time given. */
  readonly pinned: Pinned
  /** A session that keeps the tables without transactions from changing until it is released. */
  readonly frozen: Session | undefined
  /** Throws when the session that keeps schema changes away was lost meanwhile. */
  check(): Promise<void>
  /** Ends the freeze: those tables were copied. */
  release(): Promise<void>
}

/** Tables, and a time of the monotonic clock. */
type Pinned = { readonly tables: readonly Table[]; readonly untilMs: number }

const nothingPinned: Pinned = { tables: [], untilMs: 0 }

type Context = {
  readonly endpoint: Endpoint
  readonly flavor: Flavor
  readonly signal: AbortSignal
  readonly log: Log
  readonly wants: Wanted | undefined
  readonly pins: boolean
}

/** What an attempt that worked brings. */
type Attempt = Moment &
  Pick<Snapshot, 'catalog' | 'partitions' | 'pinned'> & { readonly frozen: boolean }

type Moment = Pick<Snapshot, 'end' | 'gtids' | 'timeUs' | 'blockedMs'>

/** Opens `parallel` sessions on one state of all data, by the gentlest way that the server has. */
export async function openSnapshot(
  endpoint: Endpoint,
  flavor: Flavor,
  options: {
    readonly parallel: number
    readonly signal: AbortSignal
    readonly log: Log
    /** What of it is meant; all without it. */
    readonly wants?: Wanted | undefined
    /** Keep tables as they are that may be copied at once. */
    readonly pins?: boolean | undefined
  },
): Promise<Snapshot> {
  const { signal, log } = options
  await using stack = new AsyncDisposableStack()
  const open = async () => stack.use(await Session.open(endpoint, { signal }))
  const guard = await open()
  const sessions: Session[] = []
  for (let index = 0; index < options.parallel; index++) {
    const session = await open()
    await prepareReader(session, flavor, signal)
    sessions.push(session)
  }
  const { wants, pins = false } = options
  const context = { endpoint, flavor, signal, log, wants, pins }
  const freezer = await open()
  for (const session of [guard, freezer]) {
    // They hold their locks while they say nothing, maybe for hours.
    await session.query(
      `SET SESSION lock_wait_timeout = ${lockWaitSeconds}, wait_timeout = ${sessionSeconds}`,
      { signal },
    )
  }
  const taken = await takeTogether(context, guard, freezer, sessions)
  const kept = stack.move()
  return {
    ...taken,
    sessions,
    frozen: taken.frozen ? freezer : undefined,
    check: async () => void (await guard.query('DO 0', { signal })),
    release: async () => void (await freezer.query('UNLOCK TABLES', { signal })),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

async function prepareReader(session: Session, flavor: Flavor, signal: AbortSignal): Promise<void> {
  await session.query(
    `SET SESSION sql_mode = '', time_zone = '+00:00', character_set_results = NULL,
     wait_timeout = ${sessionSeconds}, lock_wait_timeout = ${tableWaitSeconds}, net_write_timeout = ${sessionSeconds}, net_read_timeout = ${sessionSeconds}`,
    { signal },
  )
  const limit = flavor.family === 'mariadb' ? 'max_statement_time' : 'max_execution_time'
  if (flavor.family === 'mariadb' || flavor.number >= 50_708) {
    await session.query(`SET SESSION ${limit} = 0`, { signal })
  }
  await session.query('SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ', { signal })
}

async function begin(sessions: readonly Session[], signal: AbortSignal): Promise<void> {
  await Promise.all(
    sessions.map((session) =>
      session.query('START TRANSACTION WITH CONSISTENT SNAPSHOT', { signal }),
    ),
  )
  // Going back to here gives up the locks on definitions that were taken since; the view of the data stays.
  await Promise.all(sessions.map((session) => session.query('SAVEPOINT redoubt', { signal })))
}

async function takeTogether(
  context: Context,
  guard: Session,
  freezer: Session,
  sessions: readonly Session[],
): Promise<Attempt> {
  const { flavor, signal, log } = context
  const policy = {
    ...locking,
    onRetry: (error: Fault) =>
      log.info('a lock for the consistent copy was not had in time', { said: error.message }),
  }
  const attempt = flavor.backupStages ? byStages : byInstanceLock
  return retry(policy, signal, async () => {
    for (let tries = 1; ; tries++) {
      try {
        return await attempt(context, guard, freezer, sessions)
      } catch (error) {
        await letGo(context, guard, freezer, sessions)
        if (!isFault(error, 'locked') || tries >= quickTriesMax) throw error
        await systemTime.sleep(quickDelayMs * Math.random(), signal)
      }
    }
  })
}

/** After a failed attempt nothing is held any more. */
async function letGo(
  { flavor, signal }: Context,
  guard: Session,
  freezer: Session,
  sessions: readonly Session[],
): Promise<void> {
  const free = [
    ...(flavor.backupStages ? ['BACKUP STAGE END'] : []),
    'UNLOCK TABLES',
    ...(flavor.instanceLock ? ['UNLOCK INSTANCE'] : []),
  ]
  for (const session of [guard, freezer]) {
    for (const statement of free) {
      if (!session.alive || signal.aborted) return
      await session.query(statement, { signal }).catch((error: unknown) => {
        // Ending a stage that was never begun is refused: nothing is held then.
        if (!isFault(error, 'engine', 'denied')) throw error
      })
    }
  }
  for (const session of sessions) if (session.alive) await session.query('ROLLBACK', { signal })
}

/**
 * MariaDB: no statement that changes tables is under way from BLOCK_DDL on, while rows still change; only the last
 * stage holds up commits. https://mariadb.com/kb/en/backup-stage/
 */
async function byStages(
  context: Context,
  guard: Session,
  freezer: Session,
  sessions: readonly Session[],
): Promise<Attempt> {
  const { flavor, signal, endpoint } = context
  const stage = (name: string) => guard.query(`BACKUP STAGE ${name}`, { signal })
  await using reader = await openCatalogReader(endpoint, 0, signal)
  const names = await readTableNames(reader, signal)
  const ages = await readNewest(reader, signal)
  await stage('START')
  await stage('FLUSH')
  await stage('BLOCK_DDL')
  // An ALTER whose copy is made waits for the end of our stage, and holds its table meanwhile: to wait for it in turn
  // would hold up all who write to the table, and bring nothing. Those that still copy are kept from getting so far.
  await reader.query('START TRANSACTION', { signal })
  await pinListed(reader, names, signal)
  const catalog = await readCatalog(reader, flavor, signal, context.wants)
  const partitions = await readPartitions(reader, flavor, signal)
  const chosen = context.pins ? choosePinned(catalog, ages) : []
  const startMs = systemTime.monotonicMs()
  await stage('BLOCK_COMMIT')
  const frozen = await freeze(freezer, catalog, signal)
  await begin(sessions, signal)
  const moment = await readMoment(context, reader, startMs)
  await Promise.all(sessions.map((session) => pin(session, chosen, signal)))
  await stage('END')
  const blockedMs = systemTime.monotonicMs() - startMs
  for (const session of sessions) await checkAgreement(session, moment, signal)
  const pinned = { tables: chosen, untilMs: startMs + pinnedMaxMs }
  return { ...moment, blockedMs, catalog, partitions, frozen, pinned }
}

/**
 * It waits for no lock of a table for long: whoever holds one may itself wait for the end of the lock that we hold, and
 * nobody else gets on meanwhile.
 */
async function openCatalogReader(
  endpoint: Endpoint,
  waitSeconds: number,
  signal: AbortSignal,
): Promise<Session> {
  const session = await Session.open(endpoint, { signal })
  await session.query(`SET SESSION lock_wait_timeout = ${waitSeconds}`, { signal })
  return session
}

/** Each session tells at which place of the binary log its own view was made. */
async function checkAgreement(
  session: Session,
  moment: Moment,
  signal: AbortSignal,
): Promise<void> {
  if (!moment.end) return
  const rows = await session.texts(`SHOW STATUS LIKE 'binlog_snapshot_%'`, { signal })
  const status = new Map(rows.map(([name, value]) => [name?.toLowerCase(), value]))
  const file = status.get('binlog_snapshot_file')
  const offset = Number(status.get('binlog_snapshot_position'))
  if (!file || (file === moment.end.name && offset === moment.end.offset)) return
  throw new Fault(
    'conflict',
    `open consistent copy: a session stands at ${file}:${offset}, not ${moment.end.name}:${moment.end.offset}`,
    { recovery: 'retry' },
  )
}

/**
 * MySQL: DDL is kept away for as long as the copy takes where the server can. Then the sessions are opened between two
 * readings of the log's end, each made with no commit under way; if they never agree, under a short global read lock.
 */
async function byInstanceLock(
  context: Context,
  guard: Session,
  freezer: Session,
  sessions: readonly Session[],
): Promise<Attempt> {
  const { flavor, signal, endpoint } = context
  const mayLock = flavor.instanceLock && (await lockInstance(guard, signal))
  await using reader = await openCatalogReader(endpoint, lockWaitSeconds, signal)
  const catalog = await readCatalog(reader, flavor, signal, context.wants)
  const partitions = await readPartitions(reader, flavor, signal)
  if (mayLock && flavor.performanceLogStatus && unsafe(catalog).length === 0) {
    const moment = await byLogStatus(context, reader, sessions)
    if (moment) return { ...moment, catalog, partitions, frozen: false, pinned: nothingPinned }
  }
  const startMs = systemTime.monotonicMs()
  await guard.query('FLUSH TABLES WITH READ LOCK', { signal })
  const frozen = await freeze(freezer, catalog, signal)
  await begin(sessions, signal)
  const moment = await readMoment(context, reader, startMs)
  await guard.query('UNLOCK TABLES', { signal })
  return { ...moment, catalog, partitions, frozen, pinned: nothingPinned }
}

async function lockInstance(guard: Session, signal: AbortSignal): Promise<boolean> {
  try {
    await guard.query('LOCK INSTANCE FOR BACKUP', { signal })
    return true
  } catch (error) {
    if (!isFault(error, 'denied')) throw error
    return false
  }
}

async function byLogStatus(
  context: Context,
  reader: Session,
  sessions: readonly Session[],
): Promise<Moment | undefined> {
  const { signal } = context
  const sql = 'SELECT CAST(LOCAL AS CHAR) FROM performance_schema.log_status'
  for (let tries = 0; tries < lockFreeTries; tries++) {
    const before = await reader.one(sql, { signal })
    await begin(sessions, signal)
    const moment = await readMoment(context, reader, systemTime.monotonicMs())
    const after = await reader.one(sql, { signal })
    if (before?.[0] && before[0] === after?.[0]) return { ...moment, blockedMs: 0 }
  }
  return undefined
}

async function readMoment(context: Context, reader: Session, startMs: number): Promise<Moment> {
  const { flavor, signal } = context
  const end = await readLogEnd(reader, flavor, signal)
  const gtids = flavor.family === 'mariadb' || flavor.number >= 50_605
  const time = await reader.one('SELECT UNIX_TIMESTAMP(NOW(6))', { signal })
  const [seconds = '0', fraction = ''] = (time?.[0] ?? '0').split('.')
  return {
    end,
    gtids: gtids ? await readGtids(reader, flavor, signal) : '',
    timeUs: BigInt(seconds) * 1_000_000n + BigInt(fraction.padEnd(6, '0').slice(0, 6)),
    blockedMs: systemTime.monotonicMs() - startMs,
  }
}

/** Tables that a snapshot does not cover. */
function unsafe(catalog: Catalog): string[] {
  return catalog.tables
    .filter((table) => hasRows(table) && !isTransactional(table.engine))
    .map((table) => `${quoteNames(table.database, table.name)} READ`)
}

async function freeze(freezer: Session, catalog: Catalog, signal: AbortSignal): Promise<boolean> {
  const tables = unsafe(catalog)
  if (tables.length === 0) return false
  await prepareFreezer(freezer, signal)
  await freezer.query(`LOCK TABLES ${tables.join(', ')}`, { signal })
  return true
}

async function prepareFreezer(freezer: Session, signal: AbortSignal): Promise<void> {
  await freezer.query(
    `SET SESSION sql_mode = '', time_zone = '+00:00', character_set_results = NULL`,
    { signal },
  )
}
