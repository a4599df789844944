import { chown, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Fault } from '#base/faults'
import { tasks } from '#base/tasks'
import type { LogReader } from '#change'
import type { BaseFacts, RestoreRequest, RestoreResult } from '#engines'
import { carriedSettings, configured, type Layout, writeAutoConf } from './layout.ts'
import { parseHistory, positionOf, toAt } from './lsn.ts'
import { giveTo, type Programs, reachableFile } from './programs.ts'
import { isReady, recoveryEnd, StartedServer } from './server.ts'
import {
  CutFinder,
  isOnPath,
  readTimelinePaths,
  segmentPlace,
  type TimelinePath,
} from './wal-plan.ts'
import { WalServer } from './wal-server.ts'
import { type Owner, WalSupply } from './wal-supply.ts'

/** The folder in the data directory where log files lie ready for the recovery: one file system, so that a rename does. */
export const readyFolder = 'redoubt.wal'
/** A page's header at most: a recovery may end before it where we count from behind it. */
const pageHeaderBytes = 40n

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
  const paths = await readTimelinePaths(archive, base.first, signal)
  const timelines = await pathTo({ archive, base, target, signal }, paths, segmentBytes)
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
  const command = all ? copyCommand(folder) : await fetchCommand(folder, place)
  const settings = { restore_command: command, recovery_target_timeline: String(timelines.last) }
  return { settings, supply }
}

/**
 * Refuses a transaction or a named point that is nowhere in the log, before anything is laid out: a slip of the pen is not
 * to cost the hours of a restore. Other targets are known from the windows.
 */
export async function checkNamedTarget(
  request: Pick<RestoreRequest, 'archive' | 'base' | 'target' | 'signal' | 'progress'>,
): Promise<void> {
  const { archive, base, target, signal } = request
  if (!archive || (target.kind !== 'name' && target.kind !== 'commit')) return
  request.progress.phase = 'find the target in the log'
  const segmentBytes = Number(base.details['walSegmentBytes'] ?? 16_777_216)
  const paths = await readTimelinePaths(archive, base.first, signal)
  if (paths.length > 0) await searchPaths({ archive, base, target, signal }, paths, segmentBytes)
}

type Search = Pick<RestoreRequest, 'base' | 'target' | 'signal'> & { readonly archive: LogReader }

// The server must be told its last timeline before it starts. With several paths the log is searched for the target
// beforehand, on the newest first; with one, which is nearly always so, it is read only once.
async function pathTo(
  search: Search,
  paths: readonly TimelinePath[],
  segmentBytes: number,
): Promise<TimelinePath> {
  const [newest] = paths
  if (!newest) throw new Fault('gap', 'read the archived log: no timeline leads on from the base')
  if (paths.length === 1 || search.target.kind === 'latest') return newest
  return searchPaths(search, paths, segmentBytes)
}

async function searchPaths(
  search: Search,
  paths: readonly TimelinePath[],
  segmentBytes: number,
): Promise<TimelinePath> {
  let refusal: unknown
  for (const path of paths) {
    const finder = await searchPath(search, path, segmentBytes)
    try {
      finder.finish()
    } catch (error) {
      // Not on this path: perhaps on one that was left. If it is on none, what the newest said is said.
      refusal ??= error
      continue
    }
    // A time belongs to the timeline that was written then: one whose commits are all later was not.
    const written = finder.lastCommitTimeline === path.last || path.last === path.first
    if (search.target.kind === 'time' && !written) continue
    const last = finder.cut?.timeline ?? path.last
    const leftAt = new Map([...path.leftAt].filter(([timeline]) => timeline < last))
    return { first: path.first, last, leftAt }
  }
  throw refusal ?? new Fault('gap', 'read the archived log: the target is on no timeline')
}

async function searchPath(
  search: Search,
  path: TimelinePath,
  segmentBytes: number,
): Promise<CutFinder> {
  const { archive, base, target, signal } = search
  const finder = new CutFinder(target, path, segmentBytes)
  for await (const segment of archive.segments(base.first, { signal })) {
    const place = segmentPlace(segment, segmentBytes)
    if (!place || !isOnPath(path, place.timeline)) continue
    const content = await archive.read(segment.segment, { signal, history: segment.history })
    if (!content) throw new Fault('gap', `read the archived log: ${segment.segment} is missing`)
    finder.begin(place.timeline, place.first)
    if (finder.cut) break
    for await (const bytes of content) if (finder.feed(bytes)) break
    if (finder.cut) break
  }
  return finder
}

export function socketOf(place: RecoveryPlace): string {
  return path.join(place.runDir, 'wal')
}

// A file that lies ready is taken by a rename; what does not is asked for, and waited for.
async function fetchCommand(folder: string, place: RecoveryPlace): Promise<string> {
  const { owner, runDir } = place
  const node = await reachableFile(owner, process.execPath, runDir)
  const script = path.join(import.meta.dirname, 'wal-fetch.ts')
  const ask = [node, await reachableFile(owner, script, runDir), socketOf(place)]
    .map(quoteShell)
    .join(' ')
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

export type RecoverOptions = {
  readonly programs: Programs
  readonly owner: Owner | undefined
  readonly settings: Readonly<Record<string, string>>
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
      // Not what is in it: a link to node would change hands with its original.
      await chown(runDir, owner.uid, owner.gid)
      for (const folder of [dataDir, ...layout.tablespaces.values()]) await giveTo(owner, folder)
    }
    request.progress.phase = 'replay the log'
    const outlives = !layout.scratch
    const socket = socketOf(place)
    server = await replay(request, { ...options, dataDir, outlives, socket, supply })
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
  readonly outlives: boolean
  readonly socket: string
  readonly supply: WalSupply | undefined
}

async function replay(
  request: Pick<RestoreRequest, 'signal'>,
  options: ReplayOptions,
): Promise<StartedServer> {
  const { supply, socket } = options
  const find = supply ? (name: string) => supply.find(name) : async () => undefined
  let server: StartedServer | undefined
  try {
    await tasks(request.signal, async (t) => {
      await using _wal = await WalServer.listen(socket, find)
      const supplied = supply ? t.run(() => supply.run()) : Promise.resolve()
      server = await StartedServer.start(options)
      await server.until(() => isReady(options.dataDir), t.signal)
      // It may have ended early, at damage: then files lie there that it will never take.
      supply?.leave()
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

/** A recovery wants these to be no lower than on the source, which may have had them from its command line. */
const minimumNames = [
  'max_connections',
  'max_worker_processes',
  'max_wal_senders',
  'max_prepared_transactions',
  'max_locks_per_transaction',
]

export async function missingMinimums(
  dataDir: string,
  base: BaseFacts,
): Promise<Record<string, string>> {
  const carried = carriedSettings(base)
  const missing: Record<string, string> = {}
  for (const name of minimumNames) {
    const wanted = carried[name]
    const there = Number((await configured(dataDir, name)) ?? 0)
    if (wanted !== undefined && there < Number(wanted)) missing[name] = wanted
  }
  return missing
}
