import { Fault } from '#base/faults'
import { formatTimeUs } from '#base/time'
import type { Position, Target } from '#change'
import type { BaseRecord, LogSpan } from '#vault'
import { computeWindows, type Window } from './window.ts'

/** Which base a restore starts from, and what it then aims at. */
export type Choice = {
  readonly base: BaseRecord
  readonly target: Target
  /** Whether log is replayed behind the base. */
  readonly replays: boolean
  /** Where the log of the window ends, if more log follows behind a hole: a restore must not look beyond. */
  readonly end: Position | undefined
  /** Where the newest log ends, if the latest was asked for and no base and log without a hole lead there. */
  readonly beyond?: Position | undefined
}

export type ChoiceInput = {
  readonly source: string
  readonly bases: readonly BaseRecord[]
  readonly spans: readonly LogSpan[]
  readonly target: Target
}

/**
 * The newest base from which the target can be reached over log without a hole. Refuses, naming what can be reached
 * instead: a moment before the first window, inside a gap, or beyond the newest one.
 */
export function chooseBase(input: ChoiceInput): Choice {
  const windows = computeWindows(input.bases, input.spans)
  return choose({ ...input, windows })
}

type Choosing = ChoiceInput & { readonly windows: readonly Window[] }

function choose(input: Choosing): Choice {
  const { source, bases, windows, target } = input
  if (windows.length === 0) {
    throw new Fault('missing', `restore ${source}: the vault holds no base of it`, {
      hint: 'Take one with redoubt backup or redoubt protect.',
    })
  }
  switch (target.kind) {
    case 'latest':
      return chooseLatest(input)
    case 'time':
      return chooseForTime(input, target.timeUs)
    case 'position':
      return chooseForPosition(input, target.at)
    case 'name': {
      const named = bases.find((base) => base.name === target.name)
      if (named) return atBase(input, named)
      return earliestOf(input)
    }
    case 'commit':
      return earliestOf(input)
  }
}

function chooseLatest(input: Choosing): Choice {
  const window = last(input.windows)
  const choice = inWindow(input, window, newestBase(input, window))
  const { to, toUs } = window
  // Times may be whole seconds, and those of two histories tell more than their positions.
  const end = input.spans.findLast(({ history, next, completeUs = 0n, lastCommitUs = 0n }) =>
    history === to.history ? next > to.at : completeUs > toUs || lastCommitUs > toUs,
  )
  return { ...choice, beyond: end && { history: end.history, at: end.next } }
}

function chooseForTime(input: Choosing, timeUs: bigint): Choice {
  const { windows } = input
  const window = windows.findLast((w) => w.fromUs <= timeUs && timeUs <= w.toUs)
  if (!window) throw outside(input.source, windows, timeUs)
  const base = newestBase(input, window, (b) => b.consistentUs <= timeUs)
  // No commit is stamped later: the whole log is what was asked for, and the engine need not look for an end.
  const whole = timeUs >= lastCommitOf(input.spans, window)
  return inWindow(input, window, base, whole ? { kind: 'latest' } : input.target)
}

/** The newest stamp of a commit in the log of a window. */
function lastCommitOf(spans: readonly LogSpan[], window: Window): bigint {
  const { history, at } = window.to
  const end = spans.findLastIndex((s) => s.history === history && s.next === at)
  let newestUs = 0n
  for (let index = end; index >= 0; index--) {
    const span = spans[index]
    if (!span) break
    if (span.lastCommitUs !== undefined && span.lastCommitUs > newestUs)
      newestUs = span.lastCommitUs
    if (!span.continues) break
  }
  return newestUs
}

function outside(source: string, windows: readonly Window[], timeUs: bigint): Fault {
  const asked = `restore ${source} to ${formatTimeUs(timeUs)}`
  const [first] = windows
  const newest = last(windows)
  if (first && timeUs < first.fromUs) {
    return new Fault(
      'refused',
      `${asked}: the oldest moment that can be restored is ${formatTimeUs(first.fromUs)}`,
    )
  }
  if (timeUs > newest.toUs) {
    return new Fault(
      'refused',
      `${asked}: the newest moment that can be restored is ${formatTimeUs(newest.toUs)}`,
      {
        hint: 'Ask for --at latest to get all there is.',
      },
    )
  }
  const before = windows.findLast((w) => w.toUs < timeUs)
  const after = windows.find((w) => w.fromUs > timeUs)
  const edges = [before && formatTimeUs(before.toUs), after && formatTimeUs(after.fromUs)]
  return new Fault('gap', `${asked}: that moment lies in a gap of the log`, {
    hint: `The nearest moments that can be restored are ${edges.filter(Boolean).join(' and ')}.`,
  })
}

function chooseForPosition(input: Choosing, at: string): Choice {
  const { windows } = input
  for (const window of windows.toReversed()) {
    const covered = spansOf(window, input.spans).some((s) => s.first <= at && at <= s.next)
    const bases = basesOf(input, window).filter((b) => b.consistent.at <= at)
    const base = newest(bases)
    if (base && (covered || base.consistent.at === at)) return inWindow(input, window, base)
  }
  const ranges = windows.map((w) => `${w.from.at} to ${w.to.at}`).join(', ')
  throw new Fault(
    'refused',
    `restore ${input.source} to ${at}: no base and log reach that position`,
    {
      hint: `What can be reached: ${ranges}.`,
    },
  )
}

/** The log of a window: a log that began anew, in another window, may hold positions of the same text. */
function spansOf(window: Window, spans: readonly LogSpan[]): readonly LogSpan[] {
  const { history, at } = window.from
  const begin = spans.findIndex((span) => span.history === history && span.first <= at)
  if (begin < 0) return []
  const end = spans.findIndex((span, index) => index > begin && !span.continues)
  return spans.slice(begin, end < 0 ? undefined : end)
}

/** The base alone, as it was when it became consistent. */
function atBase(input: ChoiceInput, base: BaseRecord): Choice {
  const window = computeWindows([base], input.spans)[0]
  return {
    base,
    target: { kind: 'position', at: base.consistent.at },
    replays: window?.continuous ?? false,
    end: undefined,
  }
}

/** A transaction or a named point says nothing of when it was: the earliest base of the newest window finds it for sure. */
function earliestOf(input: Choosing): Choice {
  const window = last(input.windows)
  const [base] = basesOf(input, window).toSorted((a, b) => compare(a.consistentUs, b.consistentUs))
  if (!base) throw new Error('broken invariant: a window has a base')
  return inWindow(input, window, base)
}

function inWindow(
  input: Choosing,
  window: Window,
  base: BaseRecord,
  target: Target = input.target,
): Choice {
  const end = window === last(input.windows) ? undefined : window.to
  return { base, target, replays: window.continuous, end }
}

function newestBase(
  input: ChoiceInput,
  window: Window,
  accept: (base: BaseRecord) => boolean = () => true,
): BaseRecord {
  const base = newest(basesOf(input, window).filter(accept))
  if (!base)
    throw new Error('broken invariant: a window that holds the target has a base before it')
  return base
}

function basesOf(input: ChoiceInput, window: Window): BaseRecord[] {
  return input.bases.filter((base) => window.bases.includes(base.name))
}

function newest(bases: readonly BaseRecord[]): BaseRecord | undefined {
  return bases.toSorted((a, b) => compare(a.consistentUs, b.consistentUs)).at(-1)
}

function compare(a: bigint, b: bigint): number {
  return a < b ? -1 : a > b ? 1 : 0
}

function last(windows: readonly Window[]): Window {
  const window = windows.toSorted((a, b) => compare(a.toUs, b.toUs)).at(-1)
  if (!window) throw new Error('broken invariant: there is a window')
  return window
}
