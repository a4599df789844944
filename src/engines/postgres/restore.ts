import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Fault } from '#base/faults'
import { tasks } from '#base/tasks'
import { formatTimeUs } from '#base/time'
import type { BaseFacts, RestoreRequest, RestoreResult } from '#engines'
import { restoreOnly } from './extract.ts'
import {
  carriedSettings,
  checkPlaces,
  layOutBase,
  type Layout,
  placeTablespaces,
  readOptional,
  writeAutoConf,
  writeMissingConfig,
} from './layout.ts'
import { formatHistory, parseHistory, positionOf, toAt } from './lsn.ts'
import { findPrograms, giveTo, type Programs, serverOwner } from './programs.ts'
import { answers, freePort, isFree, recoveryEnd, StartedServer } from './server.ts'
import { CutFinder, type Cut, readTimelinePath, type TimelinePath } from './wal-plan.ts'
import { WalServer } from './wal-server.ts'
import { type Owner, WalSupply } from './wal-supply.ts'

/** The folder in the data directory where log files lie ready for the recovery: one file system, so that a rename does. */
const readyFolder = 'redoubt.wal'
/** A page's header at most: a recovery may end before it where we count from behind it. */
const pageHeaderBytes = 40n

/** Brings a base and the log behind it back: see `EngineKind.restore`. */
export async function restorePostgres(request: RestoreRequest): Promise<RestoreResult> {
  checkBase(request)
  if (request.only.length > 0) return restoreOnly(request)
  if (/^[a-z]+:\/\//.test(request.to)) {
    throw new Fault('usage', `restore to ${request.to}: a whole cluster is restored to a folder`, {
      hint: 'Name a folder with --to, or choose tables or a database with --only.',
    })
  }
  const dataDir = path.resolve(request.to)
  const layout = { dataDir, tablespaces: placeTablespaces(request.base, request.remap) }
  await checkPlaces(layout, request.force)
  const major = majorOf(request.base)
  const programs = request.start ? await findPrograms(major, request.serverBin) : undefined
  await layOutBase(request, layout)
  await writeMissingConfig(dataDir, request.base)
  return programs ? startRestored(request, layout, programs) : leaveRestored(request, layout)
}

export function majorOf(base: BaseFacts): string {
  return base.version.split('.')[0] ?? ''
}

function checkBase(request: RestoreRequest): void {
  const { base } = request
  if (base.engine !== 'postgres' || base.form !== 'physical') {
    throw new Fault('unsupported', `restore a ${base.form} base of ${base.engine} as PostgreSQL`)
  }
  const { target } = request
  // What was committed before the base was begun is in it, whatever the log behind it says.
  if (target.kind === 'time' && target.timeUs < base.startedUs) {
    const asked = formatTimeUs(target.timeUs)
    throw new Fault(
      'refused',
      `restore to ${asked}: the base is consistent from ${base.consistent.at} on`,
      {
        hint: `That was at ${formatTimeUs(base.consistentUs)}: choose a later moment, or an earlier base.`,
      },
    )
  }
  if (request.archive) return
  const itself = target.kind === 'position' && target.at === base.consistent.at
  if (target.kind === 'latest' || itself) return
  throw new Fault('refused', `restore to a ${target.kind}: there is no log behind the base`, {
    hint: 'Restore the base itself with --at latest.',
  })
}

/** How a recovery gets its log, and where it ends. */
export type Recovery = {
  readonly settings: Readonly<Record<string, string>>
  readonly supply: WalSupply | undefined
}

export type RecoveryPlace = {
  readonly dataDir: string
  /** A private folder for the socket. */
  readonly runDir: string
  readonly owner: Owner | undefined
}

/** Prepares the recovery from the archive, or from the log in the base alone. */
export async function planRecovery(
  request: Pick<RestoreRequest, 'archive' | 'base' | 'target' | 'signal' | 'progress'>,
  place: RecoveryPlace,
  all: boolean,
): Promise<Recovery> {
  const { archive, base, target, signal } = request
  if (!archive) {
    // Nothing is fetched; with recovery.signal the server leaves the source's timeline all the same.
    const settings = { restore_command: 'false', recovery_target: 'immediate' }
    return { settings: { ...settings, recovery_target_action: 'promote' }, supply: undefined }
  }
  request.progress.phase = 'find the target in the log'
  const segmentBytes = Number(base.details['walSegmentBytes'] ?? 16_777_216)
  const wholePath = await readTimelinePath(archive, base.first, signal)
  const timelines = await pathTo(request, wholePath, segmentBytes)
  const folder = path.join(place.dataDir, readyFolder)
  const supply = new WalSupply({
    archive,
    first: base.first,
    consistent: base.consistent,
    target,
    path: timelines,
    segmentBytes,
    folder,
    owner: place.owner,
    all,
    signal,
  })
  const command = all ? copyCommand(folder) : fetchCommand(folder, socketOf(place))
  const settings = { restore_command: command, recovery_target_timeline: String(timelines.last) }
  return { settings, supply }
}

// The server must be told its last timeline before it starts. With several of them the log is searched for the target
// beforehand; with one, which is nearly always so, it is read only once.
async function pathTo(
  request: Pick<RestoreRequest, 'archive' | 'base' | 'target' | 'signal'>,
  whole: TimelinePath,
  segmentBytes: number,
): Promise<TimelinePath> {
  const { archive, base, target, signal } = request
  if (!archive || whole.first === whole.last || target.kind === 'latest') return whole
  const finder = new CutFinder(target, whole, segmentBytes)
  for await (const segment of archive.segments(base.first, { signal })) {
    if (segment.segment.endsWith('.history')) continue
    const { timeline } = parseHistory(segment.history)
    const content = await archive.read(segment.segment, { signal, history: segment.history })
    if (!content) throw new Fault('gap', `read the archived log: ${segment.segment} is missing`)
    finder.begin(timeline, BigInt(`0x${segment.first}`))
    if (finder.cut) break
    for await (const bytes of content) if (finder.feed(bytes)) break
    if (finder.cut) break
  }
  finder.finish()
  const last = finder.cut?.timeline ?? whole.last
  const leftAt = new Map([...whole.leftAt].filter(([timeline]) => timeline < last))
  return { first: whole.first, last, leftAt }
}

export function socketOf(place: RecoveryPlace): string {
  return path.join(place.runDir, 'wal')
}

// A file that lies ready is taken by a rename; what does not is asked for, and waited for.
function fetchCommand(folder: string, socket: string): string {
  const script = path.join(import.meta.dirname, 'wal-fetch.ts')
  const ask = [process.execPath, script, socket].map(quoteShell).join(' ')
  return `mv ${quoteShell(folder)}/"%f" "%p" 2>/dev/null || exec ${ask} "%f" "%p"`
}

function copyCommand(folder: string): string {
  const file = `${quoteShell(folder)}/"%f"`
  return `test -f ${file} || exit 1; cp ${file} "%p" || exit 126`
}

// In restore_command a percent sign stands for itself only when doubled.
function quoteShell(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`.replaceAll('%', '%%')
}

/** Without a start: the log lies in the folder, and the operator starts the server. */
async function leaveRestored(request: RestoreRequest, layout: Layout): Promise<RestoreResult> {
  const { dataDir } = layout
  const owner = await serverOwner(dataDir)
  const place = { dataDir, runDir: dataDir, owner: undefined }
  const { settings, supply } = await planRecovery(request, place, true)
  if (supply) {
    request.progress.phase = 'lay out the log'
    await supply.run()
  }
  await writeAutoConf(dataDir, { ...(await missingMinimums(dataDir, request.base)), ...settings })
  await writeFile(path.join(dataDir, 'recovery.signal'), '', { mode: 0o600 })
  const end = supply?.end
  const reached = end ? toPosition(request.base, end) : request.base.consistent
  const chown = owner ? [`chown -R postgres:postgres '${dataDir}'`] : []
  const clean = supply
    ? [`When it has recovered, remove '${path.join(dataDir, readyFolder)}'.`]
    : []
  return {
    last: supply?.finder.lastCommit,
    reached,
    next: [
      ...chown,
      `Start PostgreSQL ${majorOf(request.base)} on it: pg_ctl -D '${dataDir}' start`,
      `It replays the log up to ${reached.at} and then begins a timeline of its own.`,
      ...clean,
    ],
  }
}

async function startRestored(
  request: RestoreRequest,
  layout: Layout,
  programs: Programs,
): Promise<RestoreResult> {
  const { dataDir } = layout
  const owner = await serverOwner(dataDir)
  const port = await choosePort(dataDir)
  // The socket folder that the configuration names may belong to another user; the data directory is the server's own.
  const sockets = socketFolder(dataDir)
  const settings = { port: String(port), hot_standby: 'off', unix_socket_directories: sockets }
  const url = `postgres://postgres@:${port}/postgres?host=${encodeURIComponent(sockets)}`
  const { server, result } = await recover(request, layout, {
    programs,
    owner,
    settings: { ...settings, listen_addresses: await listenAddresses(dataDir) },
    url,
    logFile: path.join(path.dirname(dataDir), `${path.basename(dataDir)}.log`),
  })
  server.release()
  return { ...result, url: `postgres://127.0.0.1:${port}/` }
}

export type RecoverOptions = {
  readonly programs: Programs
  readonly owner: Owner | undefined
  readonly settings: Readonly<Record<string, string>>
  /** How to see that the server takes connections. */
  readonly url: string
  readonly logFile: string
}

/** Starts the server on a laid-out base and waits until it has replayed the log to the target; checks that it did. */
export async function recover(
  request: Pick<RestoreRequest, 'archive' | 'base' | 'target' | 'signal' | 'progress'>,
  layout: Layout,
  options: RecoverOptions,
): Promise<{
  readonly server: StartedServer
  readonly result: RestoreResult
  readonly supply: WalSupply | undefined
}> {
  const { dataDir } = layout
  const { owner } = options
  const runDir = await mkdtemp(path.join(tmpdir(), 'redoubt-run-'))
  let server: StartedServer | undefined
  try {
    const place = { dataDir, runDir, owner }
    const { settings, supply } = await planRecovery(request, place, false)
    const minimums = await missingMinimums(dataDir, request.base)
    await writeAutoConf(dataDir, { ...minimums, ...settings })
    await writeFile(path.join(dataDir, 'recovery.signal'), '', { mode: 0o600 })
    await mkdir(path.join(dataDir, readyFolder), { recursive: true, mode: 0o700 })
    if (owner) {
      for (const folder of [runDir, dataDir, ...layout.tablespaces.values()])
        await giveTo(owner, folder)
    }
    request.progress.phase = 'replay the log'
    server = await replay(request, { ...options, dataDir, socket: socketOf(place), supply })
    await rm(path.join(dataDir, readyFolder), { recursive: true, force: true })
    await writeAutoConf(dataDir, {})
    const reached = await checkReached(dataDir, request.base, supply)
    return { server, supply, result: { last: supply?.finder.lastCommit, reached, next: [] } }
  } catch (error) {
    await server?.stop('immediate')
    throw error
  } finally {
    await rm(runDir, { recursive: true, force: true })
  }
}

type ReplayOptions = RecoverOptions & {
  readonly dataDir: string
  readonly socket: string
  readonly supply: WalSupply | undefined
}

async function replay(
  request: Pick<RestoreRequest, 'signal'>,
  options: ReplayOptions,
): Promise<StartedServer> {
  const { supply, socket, url } = options
  const find = supply ? (name: string) => supply.find(name) : async () => undefined
  let server: StartedServer | undefined
  try {
    await tasks(request.signal, async (t) => {
      await using _wal = await WalServer.listen(socket, find)
      const supplied = supply ? t.run(() => supply.run()) : Promise.resolve()
      server = await StartedServer.start(options)
      await server.until(() => answers(url, t.signal), t.signal)
      await supplied
    })
  } catch (error) {
    await server?.stop('immediate')
    throw error
  }
  if (!server) throw new Fault('engine', 'start the restored server: it did not start')
  return server
}

// The server ends its recovery at the first record that does not stand up, so a damaged file in the middle of the log
// would look like its end: where it ended is compared with where the log ends.
async function checkReached(dataDir: string, base: BaseFacts, supply: WalSupply | undefined) {
  const end = await recoveryEnd(dataDir)
  if (!end) throw new Fault('engine', 'check the recovery: the server began no timeline of its own')
  const wanted = supply?.end
  const { systemId } = parseHistory(base.first.history)
  const reached = positionOf({ systemId, timeline: end.from }, end.lsn)
  if (!wanted) return reached
  if (end.from !== wanted.timeline || end.lsn + pageHeaderBytes < wanted.lsn) {
    throw new Fault(
      'corrupt',
      `check the recovery: it ended at ${toAt(end.lsn)} of timeline ${end.from}, the log reaches ${toAt(wanted.lsn)} of timeline ${wanted.timeline}`,
      { hint: 'A part of the archived log does not stand up: redoubt vault check names it.' },
    )
  }
  return reached
}

function toPosition(base: BaseFacts, end: Cut) {
  const { systemId } = parseHistory(base.first.history)
  return { history: formatHistory({ systemId, timeline: end.timeline }), at: toAt(end.lsn) }
}

// A socket's path may have 107 bytes.
function socketFolder(dataDir: string): string {
  return Buffer.byteLength(dataDir) < 90 ? dataDir : tmpdir()
}

// The port that the configuration names, or another one where that is taken: by the source itself, say.
async function choosePort(dataDir: string): Promise<number> {
  const port = Number((await configured(dataDir, 'port')) ?? 5432)
  return (await isFree(port)) ? port : freePort()
}

async function listenAddresses(dataDir: string): Promise<string> {
  return (await configured(dataDir, 'listen_addresses')) ?? '127.0.0.1'
}

async function configured(dataDir: string, name: string): Promise<string | undefined> {
  let value: string | undefined
  for (const file of ['postgresql.conf', 'postgresql.auto.conf']) {
    const text = (await readOptional(path.join(dataDir, file))) ?? ''
    for (const line of text.split('\n')) {
      const match = new RegExp(`^\\s*${name}\\s*=?\\s*(?:'([^']*)'|([^\\s#]+))`).exec(line)
      if (match) value = match[1] ?? match[2]
    }
  }
  return value
}

/** A recovery wants these to be no lower than on the source, which may have had them from its command line. */
const minimumNames = [
  'max_connections',
  'max_worker_processes',
  'max_wal_senders',
  'max_prepared_transactions',
  'max_locks_per_transaction',
]

async function missingMinimums(dataDir: string, base: BaseFacts): Promise<Record<string, string>> {
  const carried = carriedSettings(base)
  const missing: Record<string, string> = {}
  for (const name of minimumNames) {
    const wanted = carried[name]
    const there = Number((await configured(dataDir, name)) ?? 0)
    if (wanted !== undefined && there < Number(wanted)) missing[name] = wanted
  }
  return missing
}

/** The settings of a throw-away server: nothing of the source's own configuration counts. */
export function scratchSettings(base: BaseFacts): Record<string, string> {
  const carried = carriedSettings(base)
  return Object.fromEntries(
    ['max_prepared_transactions', 'max_connections', 'max_locks_per_transaction', 'wal_level']
      .map((name) => [name, carried[name]])
      .filter((pair): pair is [string, string] => pair[1] !== undefined),
  )
}
