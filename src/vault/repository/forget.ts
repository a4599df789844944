import { Fault } from '#base/faults'
import { systemTime, type Time } from '#base/time'
import { decideForget, type ForgetGroup, formatGroup, type GroupBy } from '../retention/groups.ts'
import { areEmptyRules, hasTags, type KeepRules } from '../retention/keep.ts'
import type { Repository, Snapshot } from './repository.ts'

/** Which snapshots to look at; all of them where nothing is said. */
export type SnapshotFilter = {
  readonly hosts?: readonly string[] | undefined
  /** A snapshot passes that bears all tags of one list. */
  readonly tags?: readonly (readonly string[])[] | undefined
  /** A snapshot passes that holds all of these. */
  readonly paths?: readonly string[] | undefined
}

export type ForgetOptions = {
  readonly signal: AbortSignal
  /** What to forget, by id or its beginning; or else `rules`. */
  readonly ids?: readonly string[] | undefined
  readonly rules?: KeepRules | undefined
  readonly groupBy?: GroupBy | undefined
  readonly filter?: SnapshotFilter | undefined
  readonly dryRun?: boolean | undefined
  /** Let rules remove the last snapshot of a group. */
  readonly allowEmptyGroups?: boolean | undefined
  readonly time?: Time | undefined
}

export type Forgotten = {
  /** What the rules said, group by group; empty when ids were given. */
  readonly groups: readonly ForgetGroup<Snapshot>[]
  /** What was removed, or would be. */
  readonly removed: readonly Snapshot[]
}

/**
 * Removes snapshots, by id or by rules; the data goes with the next prune. Rules that would leave a group of
 * snapshots empty are refused unless told. Holds an exclusive lock, in a dry run a shared one.
 */
export async function forgetSnapshots(
  repository: Repository,
  options: ForgetOptions,
): Promise<Forgotten> {
  const { ids = [], rules = {}, dryRun = false } = options
  if (ids.length === 0 && areEmptyRules(rules)) {
    throw new Fault('usage', 'forget snapshots: no rule and no snapshot was given', {
      hint: 'Say what to keep, with --keep-last and the like, or name the snapshots to forget.',
    })
  }
  await using lock = await repository.lock(dryRun ? 'shared' : 'exclusive', options)
  const { signal } = lock
  const snapshots = await repository.snapshots({ signal })
  const plan = ids.length > 0 ? planByIds(snapshots, ids) : planByRules(snapshots, options)
  if (dryRun) return plan
  for (const { id } of plan.removed) {
    signal.throwIfAborted()
    await repository.removeSnapshot(id, { signal })
  }
  return plan
}

function planByIds(snapshots: readonly Snapshot[], ids: readonly string[]): Forgotten {
  const removed = new Set(ids.map((id) => findSnapshot(snapshots, id)))
  return { groups: [], removed: [...removed] }
}

function planByRules(snapshots: readonly Snapshot[], options: ForgetOptions): Forgotten {
  const { rules = {}, groupBy, filter = {}, time = systemTime, allowEmptyGroups = false } = options
  const chosen = snapshots.filter((snapshot) => passes(snapshot, filter))
  const groups = decideForget(chosen, rules, { nowMs: time.now(), groupBy })
  const emptied = groups.find((group) => group.keep.length === 0)
  if (emptied && !allowEmptyGroups) {
    throw new Fault(
      'refused',
      `forget snapshots: nothing would be left of ${formatGroup(emptied)}`,
      {
        hint: 'Widen the rules, or name the snapshots to forget by their ids.',
      },
    )
  }
  return { groups, removed: groups.flatMap((group) => group.remove) }
}

/** Whether a filter lets the snapshot pass. */
export function passes(snapshot: Snapshot, { hosts, tags, paths }: SnapshotFilter): boolean {
  return (
    (!hosts?.length || hosts.includes(snapshot.hostname ?? '')) &&
    (!tags?.length || tags.some((list) => hasTags(snapshot, list))) &&
    (paths ?? []).every((path) => snapshot.paths.includes(path))
  )
}

const idBeginning = /^[0-9a-f]{1,64}$/

/**
 * The snapshot that an id, the beginning of one, or `latest` names. Throws `missing` when there is none, `usage` when
 * the beginning fits several.
 */
export function findSnapshot(snapshots: readonly Snapshot[], id: string): Snapshot {
  const fits =
    id === 'latest'
      ? snapshots.toSorted((a, b) => Date.parse(b.time) - Date.parse(a.time)).slice(0, 1)
      : idBeginning.test(id)
        ? snapshots.filter((snapshot) => snapshot.id.startsWith(id))
        : []
  const [found, other] = fits
  if (!found) {
    throw new Fault('missing', `find snapshot '${id}': there is none`, {
      hint: 'List the snapshots with `redoubt vault ls`.',
    })
  }
  if (other) {
    throw new Fault('usage', `find snapshot '${id}': ${fits.length} ids begin so`, {
      hint: 'Give more of the id.',
    })
  }
  return found
}
