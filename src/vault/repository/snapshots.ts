import { eachLimit } from '#base/tasks'
import { takeId } from './blob-id.ts'
import { takeList, takeObject, takeText } from './json.ts'
import type { Snapshot } from './repository.ts'

const optionalTexts = ['hostname', 'username', 'program_version'] as const
const optionalLists = ['excludes', 'tags'] as const

/** Reads the JSON of a snapshot file; fields that are not known here are kept. */
export function decodeSnapshot(id: string, json: unknown): Snapshot {
  const what = `snapshot ${id}`
  const raw = takeObject(json, what)
  for (const name of optionalTexts)
    if (raw[name] !== undefined) takeText(raw[name], `${what}, ${name}`)
  for (const name of optionalLists) {
    for (const item of takeList(raw[name], what)) takeText(item, `${what}, ${name}`)
  }
  if (raw['summary'] !== undefined) takeObject(raw['summary'], `${what}, summary`)
  return {
    ...raw,
    id,
    time: takeText(raw['time'], `${what}, time`),
    tree: takeId(raw['tree'], `${what}, tree`),
    paths: takeList(raw['paths'], what).map((path) => takeText(path, `${what}, path`)),
    ...(raw['parent'] === undefined ? {} : { parent: takeId(raw['parent'], `${what}, parent`) }),
  }
}

/** The JSON text of a snapshot; the fields that restic knows come first, in its order. */
export function encodeSnapshot(snapshot: Omit<Snapshot, 'id'>): string {
  const { time, parent, tree, paths, hostname, username, uid, gid, excludes, tags, ...rest } =
    snapshot
  const lists = {
    excludes: excludes?.length ? excludes : undefined,
    tags: tags?.length ? tags : undefined,
  }
  return JSON.stringify({
    time,
    parent,
    tree,
    paths,
    hostname,
    username,
    uid,
    gid,
    ...lists,
    ...rest,
    id: undefined,
  })
}

/** Loads snapshots, a few at a time; ascending by time. */
export async function loadSnapshots(
  files: readonly { readonly id: string; readonly sizeBytes: number }[],
  signal: AbortSignal,
  load: (file: { readonly id: string; readonly sizeBytes: number }) => Promise<unknown>,
): Promise<Snapshot[]> {
  const snapshots: Snapshot[] = []
  await eachLimit(files, 8, signal, async (file) => {
    snapshots.push(decodeSnapshot(file.id, await load(file)))
  })
  const at = (snapshot: Snapshot) => Date.parse(snapshot.time)
  return snapshots.sort((a, b) => at(a) - at(b) || (a.id < b.id ? -1 : 1))
}
