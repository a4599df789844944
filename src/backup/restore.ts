import type { Log } from '#base/log'
import type { Progress } from '#base/progress'
import { systemTime } from '#base/time'
import { Fault } from '#base/faults'
import type { Target } from '#change'
import type { Check, EngineKind, RestoreRequest, RestoreResult } from '#engines'
import type { BaseRecord, Vault } from '#vault'
import { decodeFacts } from './base.ts'
import { openBaseReader } from './base-reader.ts'
import { chooseBase } from './choose.ts'
import { endLogAt } from './ended-log.ts'
import { goneOf } from './window.ts'

type Common = {
  readonly kind: EngineKind
  readonly vault: Vault
  readonly source: string
  readonly target: Target
  readonly only: readonly string[]
  readonly remap: Readonly<Record<string, string>>
  readonly serverBin?: string | undefined
  readonly parallel: number
  readonly progress: Progress
  readonly log: Log
  readonly signal: AbortSignal
}

export type RestoreSourceRequest = Common & {
  readonly to: string
  readonly start: boolean
  readonly force: boolean
}

export type ProveRequest = Common & {
  /** Where the scratch server may live; emptied afterwards. */
  readonly directory: string
  /** The words of `--at`, for the record. */
  readonly asked: string
}

export type Restored = {
  readonly base: string
  readonly result: RestoreResult
  readonly tookMs: number
}

export type Proved = Restored & { readonly ok: boolean; readonly checks: readonly Check[] }

/** Brings a source back to a moment: the newest base before it, then the archived log up to it. */
export async function restoreSource(request: RestoreSourceRequest): Promise<Restored> {
  const startedMs = systemTime.monotonicMs()
  const { base, prepared } = await prepare(request)
  const { to, start, force } = request
  const result = await request.kind.restore({ ...prepared, to, start, force })
  return { base: base.name, result, tookMs: Math.round(systemTime.monotonicMs() - startedMs) }
}

/** Restores into a scratch server, runs the engine's own checks, and records the proof, good or bad. */
export async function proveSource(request: ProveRequest): Promise<Proved> {
  const { kind, vault, source, asked, signal } = request
  const startedMs = systemTime.monotonicMs()
  const { base, prepared } = await prepare(request)
  const { result, checks } = await kind.prove(prepared, request.directory)
  const tookMs = Math.round(systemTime.monotonicMs() - startedMs)
  const ok = checks.length > 0 && checks.every((check) => check.ok)
  await vault.catalog.addProof(
    {
      source,
      base: base.name,
      target: asked,
      reached: result.reached,
      reachedUs: result.last?.timeUs,
      ok,
      checks,
      tookMs,
    },
    { signal },
  )
  return { base: base.name, result, checks, ok, tookMs }
}

type Prepared = Omit<RestoreRequest, 'to' | 'start' | 'force'>

async function prepare(request: Common): Promise<{ base: BaseRecord; prepared: Prepared }> {
  const { vault, source, signal } = request
  const bases = await vault.catalog.bases(source, { signal })
  const spans = await vault.archive.spans(source, { signal })
  for (const { after, before, said } of goneOf(spans.at(-1), 0)) {
    request.log.warn(`${said}: they held what followed ${after.at}, up to ${before?.at}`)
  }
  const { base, target, replays, end, beyond } = chooseBase({
    source,
    bases,
    spans,
    target: request.target,
  })
  if (beyond) {
    const hint = 'redoubt window shows the hole, and a new base closes it'
    const said = `the log has a hole: what is stored behind it, up to ${beyond.at}, is not restored`
    request.log.warn(`${said}; ${hint}`)
  }
  const snapshots = await vault.repository.snapshots({ signal })
  const snapshot = snapshots.find((one) => one.id === base.snapshot)
  if (!snapshot) {
    throw new Fault(
      'corrupt',
      `restore ${source}: snapshot ${base.snapshot} of base ${base.name} is gone`,
      {
        hint: 'Choose another base with --at, or a second vault.',
      },
    )
  }
  const log = replays ? await vault.archive.openReader(source, { signal }) : undefined
  const { only, remap, serverBin, parallel, progress } = request
  const prepared = {
    base: decodeFacts(base.facts),
    files: openBaseReader(vault.repository, snapshot.tree),
    archive: log && end ? endLogAt(log, end) : log,
    target,
    only,
    remap,
    serverBin,
    parallel,
    progress,
    log: request.log,
    signal,
  }
  return { base, prepared }
}
