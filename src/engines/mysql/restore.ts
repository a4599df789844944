import { join, resolve } from 'node:path'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { Fault, isFault } from '#base/faults'
import type { RestoreRequest, RestoreResult } from '#engines'
import { systemDatabases } from './catalog.ts'
import { copySelection } from './copy.ts'
import { type Flavor, parseFlavor } from './flavor.ts'
import { createGtidSet } from './gtid.ts'
import { type StoredTable, usersPath } from './layout.ts'
import { Load } from './load.ts'
import { layOutPhysical, ownDefaults, removeAccount, startPrepared } from './prepare.ts'
import { type ReplayPlan, planReplay } from './plan.ts'
import { type Endpoint, parseEndpoint } from './protocol/endpoint.ts'
import { Session } from './protocol/session.ts'
import { replay } from './replay.ts'
import {
  findPrograms,
  freePort,
  initialise,
  isOccupied,
  LocalServer,
  makeServerFolder,
} from './scratch.ts'
import { hasTable, readGtids } from './server.ts'
import { quoteName, quoteNames } from './sql.ts'
import { StatementFilter } from './statements.ts'
import { type Selection, selectTables } from './targets.ts'
import { TargetSettings } from './target-settings.ts'
import { checkFamily, checkRowEnds, makesVersioned, sourceOf } from './target-version.ts'
import { loadUsers } from './users.ts'

/** Brings a base and the log behind it back: into a server that runs, or into a new data directory. */
export async function restoreMysql(request: RestoreRequest): Promise<RestoreResult> {
  const plan = await makePlan(request)
  return isUrl(request.to) ? intoServer(request, plan) : intoDirectory(request, plan)
}

function isUrl(to: string): boolean {
  return /^(mysql|mariadb):\/\//.test(to)
}

type Plan = ReplayPlan & {
  /** Some statement or cascade may have touched the wanted tables in a way that the events of those alone do not tell. */
  readonly needsWhole: string | undefined
  /** A table gets a history in the log. */
  readonly makesVersioned: boolean
}

export async function makePlan(
  request: Omit<RestoreRequest, 'to' | 'start' | 'force'>,
): Promise<Plan> {
  const { archive, base, target, signal, progress } = request
  progress.phase = 'read log'
  const filter = new StatementFilter(selectTables(request.only))
  if (!archive) {
    const nothing = { transactions: 0, last: undefined, reached: base.consistent }
    return { ...nothing, needsWhole: undefined, makesVersioned: false }
  }
  let versioned = false
  const onStatement = (sql: Buffer, database: string) => {
    filter.see(sql, database)
    versioned ||= makesVersioned(sql)
  }
  const plan = await planReplay(archive, base.first, target, { signal, onStatement })
  return { ...plan, needsWhole: filter.doubt, makesVersioned: versioned }
}

/** A restore that tells when the base is loaded, before any log is replayed. */
type Filling = RestoreRequest & {
  readonly onLoaded?:
    | ((endpoint: Endpoint, tables: readonly StoredTable[]) => Promise<void>)
    | undefined
}

async function intoServer(request: RestoreRequest, plan: Plan): Promise<RestoreResult> {
  const endpoint = parseEndpoint(request.to)
  const selection = selectTables(request.only)
  if (request.base.form === 'physical') {
    if (!selection.everything) return throughScratch(request, plan, endpoint)
    throw new Fault(
      'usage',
      'restore a physical base into a running server: it is made of data files',
      {
        hint: 'Give a directory with --to, or some tables with --only.',
      },
    )
  }
  const doubt = selection.everything ? undefined : plan.needsWhole
  if (doubt !== undefined) {
    request.log.info('the wanted tables are restored through a scratch server', { said: doubt })
    return throughScratch(request, plan, endpoint)
  }
  return fillServer(request, plan, endpoint, selection)
}

/** Loads and replays into a running server. */
async function fillServer(
  request: Filling,
  plan: Plan,
  endpoint: Endpoint,
  selection: Selection,
): Promise<RestoreResult> {
  const { signal, base } = request
  await using session = await Session.open(endpoint, { signal })
  const flavor = await readFlavor(session, signal)
  checkFamily(base, flavor)
  await using settings = await TargetSettings.open(endpoint, request.log, signal)
  // A server that is in use may have replicas and be protected: what comes into it must be in its log, as what goes is.
  const isFresh = selection.everything && (await userDatabases(session, signal)).length === 0
  const unlogged = settings.unlogged && isFresh
  const load = await Load.open({ ...request, endpoint, selection, unlogged })
  try {
    // A table whose parents' rows cascade into it cannot be replayed alone.
    const cascade = selection.everything ? undefined : cascading(load, selection)
    if (cascade !== undefined && plan.transactions > 0) {
      request.log.info('the wanted tables are restored through a scratch server', { said: cascade })
      return await throughScratch(request, plan, endpoint)
    }
    if (plan.transactions > 0) {
      const found = { tables: load.tables, inLog: plan.makesVersioned }
      checkRowEnds(sourceOf(base), flavor, found)
    }
    await makeRoom(session, load, request, selection)
    await load.begin()
    await request.onLoaded?.(endpoint, load.tables)
    const gtids = await replayInto(request, plan, { endpoint, selection, unlogged })
    await load.finish()
    if (unlogged) await joinTopology(session, flavor, gtids, request)
  } finally {
    await load.close()
  }
  const next = [...load.refused, ...(await afterwards(session, signal))]
  return { last: plan.last, reached: plan.reached, next }
}

async function replayInto(
  request: RestoreRequest,
  plan: Plan,
  into: { readonly endpoint: Endpoint; readonly selection: Selection; readonly unlogged: boolean },
): Promise<string> {
  const gtids = request.base.details['gtids'] ?? ''
  if (!request.archive || plan.transactions === 0) return gtids
  const { archive, signal, progress, log } = request
  const { first, details, flavor } = request.base
  const family = flavor === 'mariadb' ? 'mariadb' : 'mysql'
  const nativeForeignKeys = details['native-foreign-keys'] === 'ON'
  const how = { nativeForeignKeys, signal, progress, log }
  const done = await replay({ ...into, ...how, archive, first, family, gtids, plan })
  return done.toString()
}

async function readFlavor(session: Session, signal: AbortSignal): Promise<Flavor> {
  const row = await session.one('SELECT @@global.version', { signal })
  return parseFlavor(row?.[0] ?? '')
}

/** Refuses to overwrite, or removes what is in the way; returns whether the target held no data of users at all. */
async function makeRoom(
  session: Session,
  load: Load,
  request: RestoreRequest,
  selection: Selection,
): Promise<void> {
  const { signal, force } = request
  const present = await userDatabases(session, signal)
  const taken: string[] = []
  if (selection.everything) {
    const own = load.objects.flatMap((object) => (object.kind === 'database' ? [object.name] : []))
    // What a base does not hold the log may still make or drop, whoever's it is here.
    const other = present.find((name) => !own.includes(name))
    if (other !== undefined && !force) throw occupied(request, `DATABASE ${quoteName(other)}`)
    for (const name of own.filter((one) => present.includes(one))) {
      const rows = await session.texts(`SHOW TABLES FROM ${quoteName(name)}`, { signal })
      if (rows.length > 0) taken.push(`DATABASE ${quoteName(name)}`)
      else if (force) await session.query(`DROP DATABASE ${quoteName(name)}`, { signal })
    }
  } else {
    for (const table of load.tables.filter((one) => present.includes(one.database))) {
      const at = quoteNames(table.database, table.name)
      if (await hasTable(session, table, signal)) taken.push(`TABLE ${at}`)
    }
  }
  const [first] = taken
  if (first !== undefined && !force) throw occupied(request, first)
  await session.query('SET SESSION foreign_key_checks = 0', { signal })
  for (const what of taken) await session.query(`DROP ${what}`, { signal })
}

async function userDatabases(session: Session, signal: AbortSignal): Promise<string[]> {
  const names = await session.texts('SHOW DATABASES', { signal })
  return names
    .map(([name]) => name ?? '')
    .filter((name) => !systemDatabases.has(name.toLowerCase()))
}

function occupied({ to }: RestoreRequest, what: string): Fault {
  return new Fault('refused', `restore into ${to.replace(/\/\/.*@/, '//')}: ${what} is there`, {
    hint: 'Choose an empty server, or say --force to replace what is there.',
  })
}

/** A table that a parent outside of the selection may change by itself. */
function cascading(load: Load, selection: Selection): string | undefined {
  for (const table of load.tables) {
    const cascades = table.create.matchAll(
      /REFERENCES (?:`((?:[^`]|``)+)`\.)?`((?:[^`]|``)+)` \([^)]*\)[^,\n]*? ON (?:DELETE|UPDATE) (?:CASCADE|SET)/g,
    )
    for (const [, database = table.database, parent = ''] of cascades) {
      if (!selection.accepts(database, parent)) {
        return `a foreign key of ${table.database}.${table.name} cascades from ${database}.${parent}`
      }
    }
  }
  return undefined
}

/** An empty server that takes the place of the lost one also takes over which transactions it has. */
async function joinTopology(
  session: Session,
  flavor: Flavor,
  gtids: string,
  request: RestoreRequest,
): Promise<void> {
  const { signal, log } = request
  if (gtids === '') return
  const own = createGtidSet(flavor.family, await readGtids(session, flavor, signal))
  if (!own.empty) {
    log.info('the target has transactions of its own: its GTIDs are left as they are')
    return
  }
  if (flavor.family === 'mariadb') {
    await session.query(`SET GLOBAL gtid_slave_pos = '${gtids}'`, { signal })
    return
  }
  const mode = await session.one('SELECT @@global.gtid_mode', { signal })
  if (mode?.[0] === 'ON') await session.query(`SET GLOBAL gtid_purged = '${gtids}'`, { signal })
}

/** What the operator has to know: transactions that were prepared and never decided. */
async function afterwards(session: Session, signal: AbortSignal): Promise<string[]> {
  try {
    const { rows } = await session.query('XA RECOVER', { signal })
    if (rows.length === 0) return []
    return [
      `${rows.length} prepared XA transactions wait for their coordinator: XA RECOVER lists them, XA COMMIT or XA ROLLBACK ends them`,
    ]
  } catch (error) {
    // Without the right to ask there is nothing to tell.
    if (!isFault(error, 'denied', 'engine')) throw error
    return []
  }
}

/** Makes a new data directory with the installed programs, fills it, and starts it for use if asked. */
async function intoDirectory(request: RestoreRequest, plan: Plan): Promise<RestoreResult> {
  const { base, signal, log, force, start } = request
  const directory = resolve(request.to)
  if (request.only.length > 0) {
    throw new Fault('usage', 'restore into a directory: --only needs a running server as target')
  }
  const programs = findPrograms(base.flavor === 'mariadb' ? 'mariadb' : 'mysql', request.serverBin)
  if (await isOccupied(directory)) {
    if (!force) {
      throw new Fault('refused', `restore into ${directory}: it is not empty`, {
        hint: 'Choose another directory, or say --force to replace what is there.',
      })
    }
    await rm(directory, { recursive: true })
  }
  const server = { programs, dataDirectory: directory, signal }
  const filled = await fillNew(request, plan, server)
  const defaultsFile = ownDefaults(directory)
  const own = defaultsFile ? [`--defaults-file=${defaultsFile}`] : []
  const run = [programs.server, ...own, ...programs.places, `--datadir=${directory}`].join(' ')
  if (!start) return { ...filled, next: [...filled.next, `Start the server: ${run}`] }
  const port = await freePort()
  const logFile = join(directory, 'redoubt-server.log')
  const started = await LocalServer.start({
    ...server,
    port,
    logFile,
    defaultsFile,
    outlives: true,
  })
  started.release()
  log.info('the restored server runs', { pid: started.pid, port })
  return { ...filled, url: `${programs.family}://root@127.0.0.1:${port}/` }
}

async function fillNew(
  request: RestoreRequest,
  plan: Plan,
  server: Parameters<typeof LocalServer.start>[0],
): Promise<RestoreResult> {
  if (request.base.form === 'physical') {
    const { running, result } = await fillPrepared(request, plan, server)
    await removeAccount(running, request.signal)
    await running.stop()
    return result
  }
  await initialise(server)
  await using running = await LocalServer.start({ ...server, settings: bulkSettings(server) })
  const everything = { ...request, only: [] }
  const result = await fillServer(everything, plan, running.endpoint, selectTables([]))
  const refused = await loadUsers(running.endpoint, request.files, usersPath, request.signal)
  const next = refused.map((said) => `An account or grant was refused: ${said}`)
  return { ...result, next: [...result.next, ...next] }
}

/** Lays the data files out, starts a server on them and replays the log behind them; the server runs on. */
async function fillPrepared(
  request: RestoreRequest,
  plan: Plan,
  server: Parameters<typeof LocalServer.start>[0],
): Promise<{ running: LocalServer; result: RestoreResult }> {
  const { signal } = request
  const { programs, dataDirectory } = server
  await layOutPhysical(request, dataDirectory)
  const running = await startPrepared(programs, dataDirectory, bulkSettings(server), signal)
  try {
    const { endpoint } = running
    await replayInto(request, plan, { endpoint, selection: selectTables([]), unlogged: true })
    await using session = await Session.open(endpoint, { signal })
    const next = await afterwards(session, signal)
    return { running, result: { last: plan.last, reached: plan.reached, next } }
  } catch (error) {
    await running.kill()
    throw error
  }
}

/** For a server that nobody else uses until it is filled: a crash means to begin anew. */
function bulkSettings(server: Parameters<typeof LocalServer.start>[0]): string[] {
  return [
    'innodb-flush-log-at-trx-commit=0',
    'innodb-buffer-pool-size=256M',
    'local-infile=ON',
    'max-allowed-packet=1G',
    'skip-log-bin',
    'event-scheduler=OFF',
    ...(server.programs.family === 'mysql' ? ['mysqlx=OFF'] : []),
  ]
}

/** All of it into a scratch server, then the wanted tables from there into the target. */
async function throughScratch(
  request: RestoreRequest,
  plan: Plan,
  target: Endpoint,
): Promise<RestoreResult> {
  await using scratch = await openScratch(request, plan)
  await copySelection(scratch.server.endpoint, target, request)
  return { last: plan.last, reached: plan.reached, next: [] }
}

/** A server in a temporary directory with everything in it as of the target moment. */
export async function openScratch(
  request: Omit<Filling, 'to' | 'start' | 'force'>,
  plan: Plan,
  directory?: string,
): Promise<{ server: LocalServer; result: RestoreResult } & AsyncDisposable> {
  const { base, signal } = request
  const folder = directory ?? (await mkdtemp(join(tmpdir(), 'redoubt-scratch-')))
  const clean = () => rm(folder, { recursive: true, force: true })
  try {
    await makeServerFolder(folder)
    const programs = findPrograms(
      base.flavor === 'mariadb' ? 'mariadb' : 'mysql',
      request.serverBin,
    )
    const server = { programs, dataDirectory: join(folder, 'data'), signal }
    const everything = { ...request, only: [], to: '', start: false, force: false }
    const { running, result } =
      base.form === 'physical'
        ? await fillPrepared(everything, plan, server)
        : await fillScratch(everything, plan, server)
    return {
      server: running,
      result,
      [Symbol.asyncDispose]: async () => {
        await running.kill()
        await clean()
      },
    }
  } catch (error) {
    await clean()
    throw error
  }
}

async function fillScratch(
  request: Filling,
  plan: Plan,
  server: Parameters<typeof LocalServer.start>[0],
): Promise<{ running: LocalServer; result: RestoreResult }> {
  await initialise(server)
  const running = await LocalServer.start({ ...server, settings: bulkSettings(server) })
  try {
    return { running, result: await fillServer(request, plan, running.endpoint, selectTables([])) }
  } catch (error) {
    await running.kill()
    throw error
  }
}
