import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Proved, proveSource, type Restored, restoreSource } from '#backup/restore'
import { Fault } from '#base/faults'
import type { Progress } from '#base/progress'
import { parseTimeUs } from '#base/time'
import type { Target } from '#change'
import { engineNamed } from '#engines/all'
import type { EngineKind } from '#engines'
import type { SourceRecord, Vault } from '#vault'
import { type Surroundings, useVault, type VaultChoice } from './open.ts'

export type { Proved, Restored } from '#backup/restore'

export type RestoreSettings = {
  readonly vault: VaultChoice
  readonly source?: string | undefined
  /** What the user wrote for `--at`. */
  readonly at: string
  readonly only: readonly string[]
  readonly remap: Readonly<Record<string, string>>
  readonly serverBin?: string | undefined
  readonly parallel: number
  readonly progress: Progress
}

export type RestoreTo = RestoreSettings & {
  readonly to: string
  readonly start: boolean
  readonly force: boolean
}

/** Restores a database source to a directory or into a running server. */
export async function restoreDatabase(
  settings: RestoreTo,
  around: Surroundings,
): Promise<Restored> {
  await using used = await useVault(settings.vault, around)
  const { vault } = used
  const { kind, record } = await findSource(vault, settings.source, around)
  const target = parseAt(settings.at, kind)
  return await restoreSource({ ...settings, ...around, kind, vault, source: record.name, target })
}

/** Restores into a scratch server, checks it, records the proof, and leaves nothing behind. */
export async function prove(settings: RestoreSettings, around: Surroundings): Promise<Proved> {
  await using used = await useVault(settings.vault, around)
  const { vault } = used
  const { kind, record } = await findSource(vault, settings.source, around)
  const target = parseAt(settings.at, kind)
  const directory = await mkdtemp(join(tmpdir(), 'redoubt-proof-'))
  try {
    const source = record.name
    return await proveSource({
      ...settings,
      ...around,
      kind,
      vault,
      source,
      target,
      directory,
      asked: settings.at,
    })
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

/** Reads `--at`: `latest`, a time, what the engine knows as a position or a transaction, else a name. */
export function parseAt(text: string, kind: EngineKind): Target {
  if (text === 'latest') return { kind: 'latest' }
  const timeUs = parseTimeUs(text)
  if (timeUs !== undefined) return { kind: 'time', timeUs }
  const target = kind.parseTarget(text)
  if (target === undefined && looksLikeTime.test(text)) {
    throw new Fault('usage', `read --at: '${text}' is not a time`, {
      hint: 'Write it as 2026-03-01T12:30:05.250Z (UTC unless it says otherwise), or latest for all there is.',
    })
  }
  return target ?? { kind: 'name', name: text }
}

/** What can only be meant as a time, though it is none: nobody names a point so, and the search of the log would be long. */
const looksLikeTime =
  /^(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?:[ T].*)?|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}(?: .*)?|\d{1,2}:\d\d.*|.* ago|now|today|yesterday|tomorrow)$/i

async function findSource(
  vault: Vault,
  name: string | undefined,
  around: Surroundings,
): Promise<{ kind: EngineKind; record: SourceRecord }> {
  const sources = await vault.catalog.sources(around)
  const names = sources.map((source) => source.name).join(', ')
  const record = name === undefined ? sources[0] : sources.find((source) => source.name === name)
  if (name === undefined && sources.length > 1) {
    throw new Fault('usage', 'restore: the vault holds several sources', {
      hint: `Name one with --source: ${names}.`,
    })
  }
  if (!record) {
    const what = name === undefined ? 'no database source' : `no source '${name}'`
    throw new Fault('missing', `restore: the vault holds ${what}`, {
      hint: names ? `It holds ${names}.` : undefined,
    })
  }
  return { kind: await engineNamed(record.engine), record }
}
