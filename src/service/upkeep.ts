import { type CopiedVault, copyVault } from '#backup/copy'
import { retain, type Retained } from '#backup/retain'
import { findUnnamedBases } from '#backup/unnamed-bases'
import { findUnnamedSources } from '#backup/unnamed-sources'
import type { Progress } from '#base/progress'
import type { LogFinding, Snapshot } from '#vault'
import { type CheckReport, checkRepository } from '#vault/repository/check'
import { type DataSubset, parseSubset } from '#vault/repository/check-data'
import type { ForgetOptions } from '#vault/repository/forget'
import { measureRepository, type RepositoryStats } from '#vault/repository/stats'
import { parseCount, parseTags, parseWithin, type KeepRules } from '#vault/retention/keep'
import { parseGroupBy } from '#vault/retention/groups'
import { parseUnusedLimit } from '#vault/repository/prune-plan'
import { type PruneReport, pruneRepository } from '#vault/repository/prune'
import { openVaultAt, type Surroundings, type VaultAddress } from './open.ts'

export type { CopiedVault } from '#backup/copy'
export type { PruneReport } from '#vault/repository/prune'
export type { RepositoryStats } from '#vault/repository/stats'
export type { Retained } from '#backup/retain'

export type VaultCheck = {
  readonly ok: boolean
  readonly repository: CheckReport
  /** Of catalog and log, and bases and sources that no record names. */
  readonly log: readonly LogFinding[]
}

/** Checks everything in a vault: repository, catalog, log. All findings. */
export async function checkVault(
  address: VaultAddress,
  options: { readonly readData?: DataSubset | undefined; readonly progress: Progress },
  around: Surroundings,
): Promise<VaultCheck> {
  await using vault = await openVaultAt(address, around)
  const { signal } = around
  let snapshots: readonly Snapshot[] = []
  const onSnapshots = (found: readonly Snapshot[]) => {
    snapshots = found
  }
  const repository = await checkRepository(vault.repository, { ...options, signal, onSnapshots })
  const log = [
    ...(await vault.check({ signal, readData: options.readData !== undefined })),
    ...(await findUnnamedBases(vault, snapshots, { signal })),
    ...(await findUnnamedSources(vault, snapshots, { signal })),
  ]
  const ok = repository.ok && log.every((finding) => finding.severity !== 'damaged')
  return { ok, repository, log }
}

/** What the user wrote for `--read-data` and `--read-data-subset`. */
export function readSubset(all: boolean, subset: string | undefined): DataSubset | undefined {
  if (subset !== undefined) return parseSubset(subset)
  return all ? { kind: 'all' } : undefined
}

const counted = ['last', 'hourly', 'daily', 'weekly', 'monthly', 'yearly'] as const

/** Reads the `--keep-...` options; `text` gives what the user wrote for one. */
export function readKeepRules(
  text: (option: string) => string | undefined,
  tags: readonly string[],
): KeepRules {
  const rules: Record<string, unknown> = {}
  for (const name of counted) {
    const count = text(`keep-${name}`)
    if (count !== undefined) rules[name] = parseCount(`--keep-${name}`, count)
    const suffix = name === 'last' ? '' : `-${name}`
    const span = text(`keep-within${suffix}`)
    const field = name === 'last' ? 'within' : `within${name[0]?.toUpperCase()}${name.slice(1)}`
    if (span !== undefined) rules[field] = parseWithin(`--keep-within${suffix}`, span)
  }
  if (tags.length > 0) rules['tags'] = tags.map(parseTags)
  return rules
}

export type ForgetSettings = Pick<ForgetOptions, 'ids' | 'rules' | 'dryRun'> & {
  readonly vault: VaultAddress
  readonly groupBy: string
  readonly hosts: readonly string[]
  readonly tags: readonly string[]
  readonly paths: readonly string[]
}

/** Forgets snapshots by rules or by id, and the log that no base needs any more. */
export async function forget(settings: ForgetSettings, around: Surroundings): Promise<Retained> {
  const { ids, rules, dryRun, hosts, paths } = settings
  await using vault = await openVaultAt(settings.vault, around)
  return await retain({
    vault,
    signal: around.signal,
    ids,
    rules,
    dryRun,
    groupBy: parseGroupBy(settings.groupBy),
    filter: { hosts, paths, tags: settings.tags.map(parseTags) },
  })
}

export type PruneSettings = {
  readonly vault: VaultAddress
  readonly maxUnused?: string | undefined
  readonly maxRepackBytes?: number | undefined
  readonly graceMs?: number | undefined
  readonly dryRun: boolean
  readonly progress: Progress
}

/** Frees the space of what no snapshot needs, in two phases. */
export async function prune(settings: PruneSettings, around: Surroundings): Promise<PruneReport> {
  const { vault: address, maxUnused, ...options } = settings
  await using vault = await openVaultAt(address, around)
  return await pruneRepository(vault.repository, {
    ...options,
    signal: around.signal,
    maxUnused: maxUnused === undefined ? undefined : parseUnusedLimit(maxUnused),
  })
}

export type CopySettings = {
  readonly from: VaultAddress
  readonly to: VaultAddress
  readonly ids: readonly string[]
  readonly dryRun: boolean
  readonly progress: Progress
}

/** Brings another vault up to this one: snapshots, bases, log. */
export async function copy(settings: CopySettings, around: Surroundings): Promise<CopiedVault> {
  const { ids, dryRun, progress } = settings
  await using from = await openVaultAt(settings.from, around)
  await using to = await openVaultAt(settings.to, around)
  return await copyVault({ from, to, ids, dryRun, progress, signal: around.signal })
}

/** What a vault's snapshots would restore, and what they take. */
export async function measure(
  address: VaultAddress,
  progress: Progress,
  around: Surroundings,
): Promise<RepositoryStats> {
  await using vault = await openVaultAt(address, around)
  return await measureRepository(vault.repository, { signal: around.signal, progress })
}
