import { hostname, userInfo } from 'node:os'
import { randomHex } from '#base/ids'
import type { Log } from '#base/log'
import type { Progress } from '#base/progress'
import { formatTimeUs, systemTime } from '#base/time'
import type { Position } from '#change'
import type { BaseFacts, Engine } from '#engines'
import type { BaseRecord, Repository, Vault } from '#vault'
import { readNodes } from '#vault/repository/tree-reader'
import type { TreeNode } from '#vault/repository/tree-codec'
import { baseTag } from './files.ts'
import { openBaseReader } from './base-reader.ts'
import { VaultSink } from './base-sink.ts'

export type TakeBaseRequest = {
  readonly engine: Engine
  readonly vault: Vault
  readonly source: string
  /** What the user calls this base; a name made of its time when undefined. */
  readonly name?: string | undefined
  readonly form?: 'physical' | 'logical' | undefined
  readonly tags?: readonly string[] | undefined
  /** Where the log that is being captured ends; else the end of the vault's log counts. */
  readonly known?: Position | undefined
  readonly parallel: number
  readonly limitBytesPerSecond?: number | undefined
  readonly progress: Progress
  readonly log: Log
  readonly signal: AbortSignal
}

export type TakenBase = {
  readonly record: Omit<BaseRecord, 'recordedMs'>
  /** Plain bytes that the vault did not have yet, and what they take in it. */
  readonly addedBytes: bigint
  readonly storedBytes: bigint
  readonly tookMs: number
}

/**
 * Takes a base backup of a live source into a vault: files into the repository, then the snapshot, then the catalog's
 * record. A base counts from that record on; one that was cut off before leaves only packs that the next one reuses.
 */
export async function takeBase(request: TakeBaseRequest): Promise<TakenBase> {
  const { engine, vault, progress, log } = request
  const { repository } = vault
  const startedMs = systemTime.monotonicMs()
  await using lock = await repository.lock('shared', { signal: request.signal })
  const signal = AbortSignal.any([request.signal, lock.signal])
  await repository.loadIndex({ signal })
  const parent = await findParent(request, signal)
  await using saver = await repository.openSaver({ signal })
  const sink = new VaultSink({ repository, saver, progress, signal, parent: parent?.nodes })
  const facts = await engine.takeBase(sink, {
    signal,
    progress,
    log,
    form: request.form,
    parallel: request.parallel,
    known: request.known ?? (await endOfLog(request, signal)),
    limitBytesPerSecond: request.limitBytesPerSecond,
    parent: parent && { facts: parent.facts, files: openBaseReader(repository, parent.snapshot) },
  })
  const tree = await sink.save()
  const stats = await saver.finish()
  const record = await recordBase(request, facts, tree, signal)
  return {
    record,
    addedBytes: stats.addedBytes,
    storedBytes: stats.storedBytes,
    tookMs: Math.round(systemTime.monotonicMs() - startedMs),
  }
}

async function endOfLog(
  { vault, source }: TakeBaseRequest,
  signal: AbortSignal,
): Promise<Position | undefined> {
  const last = (await vault.archive.spans(source, { signal })).at(-1)
  return last && { history: last.history, at: last.next }
}

/** The catalog keeps an engine's facts as JSON: bigints as text. */
export function encodeFacts(facts: BaseFacts): unknown {
  return JSON.parse(
    JSON.stringify(facts, (_key, value: unknown) =>
      typeof value === 'bigint' ? { bigint: value.toString() } : value,
    ),
  )
}

export function decodeFacts(stored: unknown): BaseFacts {
  const revive = (_key: string, value: unknown) =>
    typeof value === 'object' && value !== null && 'bigint' in value
      ? BigInt(String(value.bigint))
      : value
  return JSON.parse(JSON.stringify(stored), revive) as BaseFacts
}

async function recordBase(
  request: TakeBaseRequest,
  facts: BaseFacts,
  tree: string,
  signal: AbortSignal,
): Promise<Omit<BaseRecord, 'recordedMs'>> {
  const { vault, source } = request
  const name = request.name ?? `${source}-${formatTimeUs(facts.consistentUs).slice(0, 19)}Z`
  const snapshot = await vault.repository.saveSnapshot(
    {
      time: formatTimeUs(facts.consistentUs),
      tree,
      paths: [`/redoubt/${source}`],
      hostname: hostname(),
      username: userInfo().username,
      tags: [baseTag, `source=${source}`, `engine=${facts.engine}`, ...(request.tags ?? [])],
      program_version: 'redoubt',
    },
    { signal },
  )
  const record = {
    source,
    name: await uniqueName(vault, source, name, signal),
    snapshot: snapshot.id,
    first: facts.first,
    consistent: facts.consistent,
    consistentUs: facts.consistentUs,
    facts: encodeFacts(facts),
  }
  await vault.catalog.addBase(record, { signal })
  return record
}

async function uniqueName(
  vault: Vault,
  source: string,
  name: string,
  signal: AbortSignal,
): Promise<string> {
  const bases = await vault.catalog.bases(source, { signal })
  return bases.some((base) => base.name === name) ? `${name}-${randomHex(2)}` : name
}

type Parent = {
  readonly facts: BaseFacts
  readonly snapshot: string
  readonly nodes: ReadonlyMap<string, TreeNode>
}

/** The newest base of the same source, form and flavour, for engines that can tell what changed since. */
async function findParent(
  request: TakeBaseRequest,
  signal: AbortSignal,
): Promise<Parent | undefined> {
  const { vault, source, engine, form } = request
  const bases = await vault.catalog.bases(source, { signal })
  const base = bases.findLast((one) => {
    const facts = decodeFacts(one.facts)
    return facts.engine === engine.facts.engine && (form === undefined || facts.form === form)
  })
  if (!base) return undefined
  const snapshots = await vault.repository.snapshots({ signal })
  const snapshot = snapshots.find((one) => one.id === base.snapshot)
  if (!snapshot) return undefined
  return {
    facts: decodeFacts(base.facts),
    snapshot: snapshot.tree,
    nodes: await readFiles(vault.repository, snapshot.tree, signal),
  }
}

async function readFiles(
  repository: Repository,
  tree: string,
  signal: AbortSignal,
): Promise<Map<string, TreeNode>> {
  const files = new Map<string, TreeNode>()
  for await (const { path, node } of readNodes(repository, tree, { signal })) {
    if (node.kind === 'file') files.set(path, node)
  }
  return files
}
