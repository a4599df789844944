import type { Position } from '#change'
import type {
  BaseRecord,
  Degraded,
  GapRecord,
  LogSpan,
  ProofRecord,
  SourceRecord,
  Vault,
} from '#vault'

/** A stretch of time to every moment of which the source can be restored. */
export type Window = {
  readonly fromUs: bigint
  readonly toUs: bigint
  readonly from: Position
  readonly to: Position
  /** Names of the bases that a restore into this window starts from. */
  readonly bases: readonly string[]
  /** A base without any log behind it: one moment only. */
  readonly continuous: boolean
}

/** What can be restored of one source, and what stands against it. */
export type WindowReport = {
  readonly source: SourceRecord
  readonly windows: readonly Window[]
  readonly bases: readonly BaseRecord[]
  readonly gaps: readonly GapRecord[]
  readonly lastProof: ProofRecord | undefined
  /** Why commits are less durable than was asked for, as `protect` said it last; undefined when all is well, or nothing runs. */
  readonly degraded: (Degraded & { readonly heardMs: number }) | undefined
  /** How old the newest restorable moment is; undefined when nothing can be restored. */
  readonly rpoMs: number | undefined
}

export type WindowRequest = {
  readonly vault: Vault
  /** All sources when undefined. */
  readonly source?: string | undefined
  readonly nowMs: number
  readonly signal: AbortSignal
}

/** Reads from the vault alone what can be restored now; the archive's own listing decides, not what was once recorded. */
export async function readWindows(request: WindowRequest): Promise<WindowReport[]> {
  const { vault, signal } = request
  const sources = await vault.catalog.sources({ signal })
  const wanted = sources.filter((s) => request.source === undefined || s.name === request.source)
  return Promise.all(wanted.map((source) => readReport(request, source)))
}

async function readReport(request: WindowRequest, source: SourceRecord): Promise<WindowReport> {
  const { vault, signal, nowMs } = request
  const bases = await vault.catalog.bases(source.name, { signal })
  const spans = await vault.archive.spans(source.name, { signal })
  const proofs = await vault.catalog.proofs(source.name, { signal })
  const windows = computeWindows(bases, spans)
  const newestUs = windows.at(-1)?.toUs
  return {
    source,
    windows,
    bases,
    gaps: [...(await vault.catalog.gaps(source.name, { signal })), ...goneOf(spans.at(-1), nowMs)],
    lastProof: proofs.findLast((proof) => proof.ok),
    degraded: await vault.archive.degraded(source.name, { signal }),
    rpoMs: newestUs === undefined ? undefined : Math.max(0, nowMs - Number(newestUs / 1000n)),
  }
}

/** Log that was stored and is gone from the end: a gap that nobody recorded. */
export function goneOf(last: LogSpan | undefined, nowMs: number): readonly GapRecord[] {
  if (!last?.gone) return []
  const after = { history: last.history, at: last.next }
  const said = 'the newest objects of the log are gone from the vault'
  return [{ source: last.source, after, before: last.gone, said, recordedMs: nowMs }]
}

/**
 * The windows that bases and log spans make, in order of time. A base opens a window at the moment it is consistent;
 * the log behind it, as far as it goes without a hole, keeps it open. Bases on one stretch of log share a window.
 */
export function computeWindows(
  bases: readonly BaseRecord[],
  spans: readonly LogSpan[],
): readonly Window[] {
  const stretches = joinSpans(spans)
  const windows: Window[] = []
  const byStretch = new Map<Stretch, BaseRecord[]>()
  for (const base of bases) {
    const stretch = stretches.find((one) => covers(one, base))
    if (stretch) byStretch.set(stretch, [...(byStretch.get(stretch) ?? []), base])
    else windows.push(baseAlone(base))
  }
  for (const [stretch, on] of byStretch) windows.push(openWindow(stretch, on))
  return windows.toSorted((a, b) => (a.fromUs < b.fromUs ? -1 : a.fromUs > b.fromUs ? 1 : 0))
}

/** Spans that follow one another without a hole. */
type Stretch = readonly LogSpan[]

function joinSpans(spans: readonly LogSpan[]): readonly Stretch[] {
  const stretches: LogSpan[][] = []
  for (const span of spans) {
    const last = stretches.at(-1)
    if (last && span.continues) last.push(span)
    else stretches.push([span])
  }
  return stretches
}

/** Whether the log of a stretch begins early enough for the base and reaches its consistent point. */
function covers(stretch: Stretch, base: BaseRecord): boolean {
  const begins = stretch.findIndex(
    (s) => s.history === base.first.history && s.first <= base.first.at,
  )
  return (
    begins >= 0 &&
    stretch
      .slice(begins)
      .some((s) => s.history === base.consistent.history && s.next >= base.consistent.at)
  )
}

function baseAlone(base: BaseRecord): Window {
  return {
    fromUs: base.consistentUs,
    toUs: base.consistentUs,
    from: base.consistent,
    to: base.consistent,
    bases: [base.name],
    continuous: false,
  }
}

function openWindow(stretch: Stretch, bases: readonly BaseRecord[]): Window {
  const [first] = bases.toSorted((a, b) => Number(a.consistentUs - b.consistentUs))
  const last = stretch.at(-1)
  if (!first || !last) throw new Error('broken invariant: a window has a base and a log')
  const ends = stretch.flatMap((s) => [s.completeUs ?? 0n, s.lastCommitUs ?? 0n])
  const toUs = ends.reduce((a, b) => (a > b ? a : b), first.consistentUs)
  return {
    fromUs: first.consistentUs,
    toUs,
    from: first.consistent,
    to: { history: last.history, at: last.next },
    bases: bases.map((base) => base.name),
    continuous: true,
  }
}
