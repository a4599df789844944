import { Fault } from '#base/faults'
import {
  decideKeep,
  type KeepDecision,
  type KeepOptions,
  type KeepRules,
  type Retained,
} from './keep.ts'

/** By what snapshots are divided before rules are applied to each group alone. */
export type GroupBy = {
  readonly host: boolean
  readonly paths: boolean
  readonly tags: boolean
}

/** What forgetting does unless told. */
export const defaultGroupBy: GroupBy = { host: true, paths: true, tags: false }

const words: Readonly<Record<string, keyof GroupBy>> = {
  host: 'host',
  hosts: 'host',
  path: 'paths',
  paths: 'paths',
  tag: 'tags',
  tags: 'tags',
}

/** Reads `host,paths,tags`, any of them; empty means one group of all. */
export function parseGroupBy(text: string): GroupBy {
  const groupBy = { host: false, paths: false, tags: false }
  for (const word of text.split(',')) {
    if (word === '') continue
    const field = words[word]
    if (!field) {
      throw new Fault('usage', `read --group-by '${text}': '${word}' is no way to group`, {
        hint: 'Give host, paths, tags, or some of them with commas between.',
      })
    }
    groupBy[field] = true
  }
  return groupBy
}

/** What the snapshots of a group have in common; undefined where they were not grouped by it. */
export type GroupKey = {
  readonly host?: string | undefined
  readonly paths?: readonly string[] | undefined
  readonly tags?: readonly string[] | undefined
}

export type Group<T> = GroupKey & { readonly snapshots: readonly T[] }

/** Divides snapshots; paths and tags count whatever their order. Groups come in the order of their keys. */
export function groupSnapshots<T extends Retained>(
  snapshots: readonly T[],
  groupBy: GroupBy,
): readonly Group<T>[] {
  const groups = new Map<string, GroupKey & { readonly snapshots: T[] }>()
  for (const snapshot of snapshots) {
    const key: GroupKey = {
      ...(groupBy.host ? { host: snapshot.hostname ?? '' } : undefined),
      ...(groupBy.paths ? { paths: sortText(snapshot.paths) } : undefined),
      ...(groupBy.tags && snapshot.tags ? { tags: sortText(snapshot.tags) } : undefined),
    }
    const text = JSON.stringify([key.host, key.paths, key.tags])
    const group = groups.get(text)
    if (group) group.snapshots.push(snapshot)
    else groups.set(text, { ...key, snapshots: [snapshot] })
  }
  const keys = [...groups.keys()].sort()
  return keys.flatMap((key) => groups.get(key) ?? [])
}

/** In byte order of UTF-8, which is not that of UTF-16. */
export function sortText(texts: readonly string[]): string[] {
  return texts.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
}

/** Names a group for people: `host db1, paths /srv`. */
export function formatGroup(key: GroupKey): string {
  const parts = [
    key.host === undefined ? [] : [`host ${key.host}`],
    key.paths === undefined ? [] : [`paths ${key.paths.join(', ')}`],
    key.tags === undefined ? [] : [`tags ${key.tags.join(', ')}`],
  ].flat()
  return parts.length === 0 ? 'all snapshots' : parts.join(', ')
}

/** What the rules say of one group. */
export type ForgetGroup<T> = GroupKey & KeepDecision<T>

/** Applies the rules to each group. */
export function decideForget<T extends Retained>(
  snapshots: readonly T[],
  rules: KeepRules,
  options: KeepOptions & { readonly groupBy?: GroupBy | undefined },
): readonly ForgetGroup<T>[] {
  const { groupBy = defaultGroupBy } = options
  return groupSnapshots(snapshots, groupBy).map(({ snapshots: members, ...key }) => ({
    ...key,
    ...decideKeep(members, rules, options),
  }))
}

/** The decision as `restic forget --json` tells it. */
export function forgetJson<T extends Retained>(
  groups: readonly ForgetGroup<T>[],
  groupBy: GroupBy = defaultGroupBy,
): readonly unknown[] {
  const show = ({ id, ...snapshot }: T) => ({
    ...snapshot,
    time: snapshot.time.replace(/[+-]00:00$/, 'Z'),
    paths: sortText(snapshot.paths),
    ...(groupBy.tags && snapshot.tags ? { tags: sortText(snapshot.tags) } : undefined),
    id,
    short_id: id.slice(0, 8),
  })
  const orNull = <V>(list: readonly V[] | undefined) => (list && list.length > 0 ? list : null)
  return groups.map((group) => ({
    tags: orNull(group.tags),
    host: group.host ?? '',
    paths: group.paths ?? null,
    keep: orNull(group.keep.map(show)),
    remove: orNull(group.remove.map(show)),
    reasons: orNull(
      group.reasons.map(({ snapshot, matches }) => ({ snapshot: show(snapshot), matches })),
    ),
  }))
}
