import { hostname as thisHost, userInfo } from 'node:os'
import { resolve } from 'node:path'
import { Fault } from '#base/faults'
import type { Progress } from '#base/progress'
import { formatTimeUs, parseTimeUs } from '#base/time'
import {
  anyPatterns,
  compilePatterns,
  createWalk,
  openTarget,
  type Overwrite,
  patternText,
  type Patterns,
  type WalkRules,
} from '#files'
import { discardsWrites } from '#storage/wrap/discard'
import type { Repository, Snapshot } from '#vault'
import {
  type Archived,
  type ArchiveOptions,
  archiveTree,
  type Trouble as ArchiveTrouble,
  chooseParent,
} from '#vault/repository/archiver'
import { compareTree, type Difference } from '#vault/repository/comparer'
import { resolveTree } from '#vault/repository/tree-loader'
import {
  type Restored,
  restoreTree,
  type RestoreTrouble,
  type Selection,
} from '#vault/repository/restorer'

/** The tag of snapshots that hold bases of databases; those are restored by their engines. */
export const baseTag = 'redoubt-base'

export type BackupFilesRequest = Omit<WalkRules, 'paths' | 'root'> &
  Pick<
    ArchiveOptions,
    'compression' | 'workers' | 'ignoreInode' | 'ignoreCtime' | 'skipIfUnchanged'
  > & {
    readonly repository: Repository
    readonly paths: readonly string[]
    readonly signal: AbortSignal
    readonly progress?: Progress | undefined
    readonly hostname?: string | undefined
    readonly tags?: readonly string[] | undefined
    /** When the backup is said to have been made; now unless given. */
    readonly timeUs?: bigint | undefined
    /** A snapshot to compare with, by its id or the start of it, instead of the last one of these paths. */
    readonly parent?: string | undefined
    /** Read every file again. */
    readonly force?: boolean | undefined
    /** Store nothing; the repository was opened on a storage that discards writes (`#storage/wrap/discard`). */
    readonly dryRun?: boolean | undefined
    readonly onTrouble?: ((trouble: ArchiveTrouble) => void) | undefined
  }

/** `unreadCount` above 0 means done with findings: the snapshot is there, and lacks those nodes. */
export type BackedUpFiles = Archived & { readonly parent: string | undefined }

/**
 * Backs file trees up as one snapshot, as restic does. Takes a shared lock; throws `locked` while somebody prunes,
 * `missing` when none of the paths is there, `usage` for a pattern that makes no sense.
 */
export async function backupFiles(request: BackupFilesRequest): Promise<BackedUpFiles> {
  const { repository, paths, dryRun = false } = request
  if (paths.length === 0) throw new Fault('usage', 'back up files: no path is given')
  if (dryRun && !discardsWrites(repository.storage))
    throw new Error('broken invariant: a dry run works on a storage that discards writes')
  const source = createWalk(request)
  await using lock = await openLock(request)
  const signal = lock.signal
  // Snapshots before indexes: what a snapshot names is then in an index that is loaded.
  const snapshots = await repository.snapshots({ signal })
  await repository.loadIndex({ signal })
  const time = formatTimeUs(request.timeUs ?? BigInt(Date.now()) * 1000n)
  const facts = {
    time,
    paths: [...new Set(paths.map((path) => resolve(path)))].sort(),
    hostname: request.hostname ?? thisHost(),
    ...userFacts(),
    excludes: [...(request.excludes ?? []), ...(request.excludesNoCase ?? [])],
    tags: request.tags ?? [],
    program_version: 'redoubt',
  }
  const parent = findParent(snapshots, facts, request)
  const archived = await archiveTree(repository, source, { ...request, signal, facts, parent })
  return { ...archived, parent: parent?.id }
}

function findParent(
  snapshots: readonly Snapshot[],
  facts: Pick<Snapshot, 'paths' | 'hostname' | 'time'>,
  request: BackupFilesRequest,
): Snapshot | undefined {
  if (request.force) return undefined
  if (request.parent !== undefined) return findSnapshot(snapshots, request.parent)
  return chooseParent(snapshots.filter(isOfFiles), facts)
}

function userFacts(): Pick<Snapshot, 'username' | 'uid' | 'gid'> {
  const { username, uid, gid } = userInfo()
  return { username, ...(uid >= 0 && { uid }), ...(gid >= 0 && { gid }) }
}

export type SnapshotChoice = {
  /** `latest`, a time (the last snapshot not later than that), or an id or the start of one. */
  readonly at: string
  readonly hostname?: string | undefined
  readonly paths?: readonly string[] | undefined
  readonly tags?: readonly string[] | undefined
}

/** The snapshot of files that is meant; throws `missing`, and `usage` when several begin with the id. */
export function chooseSnapshot(snapshots: readonly Snapshot[], choice: SnapshotChoice): Snapshot {
  const { at, hostname, paths = [], tags = [] } = choice
  const timeUs = at === 'latest' ? undefined : parseTimeUs(at)
  if (at !== 'latest' && timeUs === undefined) return findSnapshot(snapshots, at)
  const fit = snapshots.filter(
    (snapshot) =>
      isOfFiles(snapshot) &&
      (hostname === undefined || snapshot.hostname === hostname) &&
      paths.every((path) => snapshot.paths.includes(resolve(path))) &&
      tags.every((tag) => snapshot.tags?.includes(tag)) &&
      (timeUs === undefined || timeOf(snapshot) <= timeUs),
  )
  const [latest] = fit.toSorted((a, b) => Number(timeOf(b) - timeOf(a)))
  if (latest) return latest
  throw new Fault('missing', `find a snapshot of files at ${at}: the vault holds none that fits`, {
    hint: 'List what there is with `redoubt vault ls`.',
  })
}

export type RestoreFilesRequest = SnapshotChoice & {
  readonly repository: Repository
  readonly directory: string
  readonly signal: AbortSignal
  readonly progress?: Progress | undefined
  /** A directory of the snapshot whose contents are restored, instead of the whole. */
  readonly subpath?: string | undefined
  /** What to restore; everything unless given. Without upper and lower case told apart in the second list. */
  readonly includes?: readonly string[] | undefined
  readonly includesNoCase?: readonly string[] | undefined
  /** What to leave out; not together with `includes`. */
  readonly excludes?: readonly string[] | undefined
  readonly excludesNoCase?: readonly string[] | undefined
  /** What to do about files that are there; without it a target that is not empty is refused. */
  readonly overwrite?: Overwrite | undefined
  /** Remove what is in the target and not in the snapshot, as far as it is selected. */
  readonly removeOthers?: boolean | undefined
  readonly sparse?: boolean | undefined
  readonly owners?: boolean | undefined
  readonly verify?: boolean | undefined
  readonly dryRun?: boolean | undefined
  readonly onTrouble?: ((trouble: RestoreTrouble) => void) | undefined
  readonly onNode?: ((event: { readonly path: Buffer; readonly did: string }) => void) | undefined
}

export type RestoredFiles = Restored & { readonly snapshot: Snapshot }

/**
 * Restores a snapshot of files below a directory, paths as they stand in the snapshot; fetches only chunks that
 * are not there already. `troubleCount` above 0 means done with findings; damage in the vault throws `corrupt`
 * once everything else is restored.
 */
export async function restoreFiles(request: RestoreFilesRequest): Promise<RestoredFiles> {
  const { repository, directory, overwrite, sparse, owners, dryRun, removeOthers } = request
  const select = createSelection(request)
  await using lock = await openLock({ ...request, readOnly: true })
  const { signal } = lock
  const { snapshot, tree } = await openSnapshot(repository, request, signal)
  await using target = await openTarget(directory, {
    overwrite,
    sparse,
    owners,
    dryRun,
    removeDirectories: removeOthers,
  })
  const restored = await restoreTree(repository, tree, target, { ...request, signal, select })
  return { ...restored, snapshot }
}

export type CompareFilesRequest = Pick<
  RestoreFilesRequest,
  | keyof SnapshotChoice
  | 'repository'
  | 'directory'
  | 'signal'
  | 'progress'
  | 'subpath'
  | 'includes'
  | 'includesNoCase'
  | 'excludes'
  | 'excludesNoCase'
> & {
  readonly trustTimes?: boolean | undefined
  readonly ignoreOwners?: boolean | undefined
}

/** Compares a directory with a snapshot of files, changing neither; yields the differences as they are found. */
export async function* compareFiles(
  request: CompareFilesRequest,
): AsyncGenerator<Difference, void, void> {
  const { repository, directory } = request
  const select = createSelection(request)
  await using lock = await openLock({ ...request, readOnly: true })
  const { signal } = lock
  const { tree } = await openSnapshot(repository, request, signal)
  const present = createWalk({ paths: ['.'], root: resolve(directory), sockets: true })
  yield* compareTree(repository, tree, present, { ...request, signal, select })
}

async function openSnapshot(
  repository: Repository,
  request: SnapshotChoice & { readonly subpath?: string | undefined },
  signal: AbortSignal,
): Promise<{ readonly snapshot: Snapshot; readonly tree: string }> {
  const snapshot = chooseSnapshot(await repository.snapshots({ signal }), request)
  await repository.loadIndex({ signal })
  const { subpath = '/' } = request
  return { snapshot, tree: await resolveTree(repository, snapshot.tree, subpath, { signal }) }
}

type PatternLists = Pick<
  RestoreFilesRequest,
  'includes' | 'includesNoCase' | 'excludes' | 'excludesNoCase'
>

/** Patterns match against the path in the snapshot, with restic's meaning. */
function createSelection(lists: PatternLists): Selection | undefined {
  const includes = bothCases(lists.includes, lists.includesNoCase)
  const excludes = bothCases(lists.excludes, lists.excludesNoCase)
  if (includes.count > 0 && excludes.count > 0)
    throw new Fault('usage', 'restore files: includes and excludes exclude each other', {
      hint: 'Give either what to restore or what to leave out; `!` in a pattern takes back.',
    })
  if (includes.count > 0)
    return (path) => {
      const text = patternText(path)
      return { selected: includes.matches(text), below: includes.mayMatchBelow(text) }
    }
  if (excludes.count === 0) return undefined
  return (path) => {
    const selected = !excludes.matches(patternText(path))
    return { selected, below: selected }
  }
}

function bothCases(
  sensitive: readonly string[] = [],
  insensitive: readonly string[] = [],
): Patterns {
  return anyPatterns([
    compilePatterns(sensitive),
    compilePatterns(insensitive, { insensitive: true }),
  ])
}

function isOfFiles(snapshot: Snapshot): boolean {
  return !snapshot.tags?.includes(baseTag)
}

function timeOf(snapshot: Snapshot): bigint {
  // Stock restic writes nanoseconds: cut to the microseconds that times have here.
  return parseTimeUs(snapshot.time.replace(/(\.\d{6})\d+/, '$1')) ?? 0n
}

function findSnapshot(snapshots: readonly Snapshot[], id: string): Snapshot {
  const fit = /^[0-9a-f]{4,64}$/.test(id)
    ? snapshots.filter((snapshot) => snapshot.id.startsWith(id))
    : []
  const [found] = fit
  if (found && fit.length === 1) return found
  throw new Fault(
    found ? 'usage' : 'missing',
    `find snapshot ${id}: ${found ? `${fit.length} begin so` : 'there is none'}`,
    { hint: 'Give `latest`, a time, or the first digits of an id that `redoubt vault ls` shows.' },
  )
}

/** A shared lock, whose loss aborts the work; a dry run leaves no trace, and so has none. */
async function openLock(request: {
  readonly repository: Repository
  readonly signal: AbortSignal
  readonly dryRun?: boolean | undefined
  readonly readOnly?: boolean | undefined
}): Promise<{ readonly signal: AbortSignal } & AsyncDisposable> {
  const { repository, signal, dryRun, readOnly } = request
  if (dryRun) return { signal, [Symbol.asyncDispose]: async () => undefined }
  const lock = await repository.lock('shared', { signal, readOnly })
  return {
    signal: AbortSignal.any([signal, lock.signal]),
    [Symbol.asyncDispose]: async () => lock[Symbol.asyncDispose](),
  }
}
