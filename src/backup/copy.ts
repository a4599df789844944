import { Fault } from '#base/faults'
import type { Progress } from '#base/progress'
import type { BaseRecord, Snapshot, Vault } from '#vault'
import { type Copied, copySnapshots, isCopy } from '#vault/repository/copy'
import type { SnapshotFilter } from '#vault/repository/forget'

export type CopyVaultRequest = {
  readonly from: Vault
  readonly to: Vault
  readonly ids?: readonly string[] | undefined
  readonly filter?: SnapshotFilter | undefined
  readonly dryRun: boolean
  readonly progress: Progress
  readonly signal: AbortSignal
}

export type CopiedVault = Copied & {
  /** Bases that the other vault knows now, and sources whose log it was brought up to. */
  readonly bases: readonly string[]
  readonly logs: readonly string[]
}

/**
 * Brings another vault up to this one: snapshots with all that they need, the records of the bases among them, and each
 * source's log. What is there already is left alone; a copy that was broken off goes on when it is run again.
 */
export async function copyVault(request: CopyVaultRequest): Promise<CopiedVault> {
  const { from, to, dryRun } = request
  if (dryRun) {
    return {
      ...(await copySnapshots(from.repository, to.repository, request)),
      bases: [],
      logs: [],
    }
  }
  // Until the records stand: a base without one would be taken for one whose record is gone.
  await using lock = await to.repository.lock('shared', request)
  const { signal } = lock
  const copied = await copySnapshots(from.repository, to.repository, { ...request, signal })
  const theirs = await to.repository.snapshots({ signal })
  const ours = await from.repository.snapshots({ signal })
  const bases: string[] = []
  const logs: string[] = []
  for (const { recordedMs: _recordedMs, ...source } of await from.catalog.sources({ signal })) {
    await to.catalog.addSource(source, { signal })
    await from.archive.copyTo(to.archive, source.name, { signal })
    logs.push(source.name)
    const known = new Set((await to.catalog.bases(source.name, { signal })).map((one) => one.name))
    for (const base of await from.catalog.bases(source.name, { signal })) {
      const snapshot = known.has(base.name) ? undefined : copyOf(base, ours, theirs)
      if (snapshot === undefined) continue
      const { recordedMs: _recorded, ...record } = base
      await to.catalog.addBase({ ...record, snapshot }, { signal })
      bases.push(base.name)
    }
  }
  return { ...copied, bases, logs }
}

/** Brings one base to another vault, under the same name. */
export async function copyBase(request: {
  readonly from: Vault
  readonly to: Vault
  readonly base: Omit<BaseRecord, 'recordedMs'>
  readonly progress: Progress
  readonly signal: AbortSignal
}): Promise<void> {
  const { from, to, base, progress } = request
  await using lock = await to.repository.lock('shared', request)
  const { signal } = lock
  await copySnapshots(from.repository, to.repository, { ids: [base.snapshot], progress, signal })
  const ours = await from.repository.snapshots({ signal })
  const snapshot = copyOf(base, ours, await to.repository.snapshots({ signal }))
  if (snapshot === undefined) {
    throw new Fault('missing', `copy base ${base.name} to ${to.url}: its snapshot did not arrive`)
  }
  await to.catalog.addBase({ ...base, snapshot }, { signal })
}

/** The other vault's copy of a base's snapshot; undefined when it was not among what was copied. */
function copyOf(
  base: Pick<BaseRecord, 'snapshot'>,
  ours: readonly Snapshot[],
  theirs: readonly Snapshot[],
): string | undefined {
  const original = ours.find((one) => one.id === base.snapshot)
  return original && theirs.find((one) => isCopy(one, original))?.id
}
