import { Fault } from '#base/faults'
import {
  before,
  formatSpan,
  isEmptySpan,
  type LocalOffset,
  parseSpan,
  parseZoned,
  periodOf,
  type Span,
  systemOffset,
  type Unit,
  type ZonedTime,
} from './calendar.ts'

/** Keep all that a counted rule finds. */
export const unlimited = -1

/** Which snapshots of a group to keep: all that any rule wants. Counts are 0 (rule unused) upwards, or `unlimited`. */
export type KeepRules = {
  readonly last?: number | undefined
  readonly hourly?: number | undefined
  readonly daily?: number | undefined
  readonly weekly?: number | undefined
  readonly monthly?: number | undefined
  readonly yearly?: number | undefined
  /** Everything newer than this, counted back from the newest snapshot of the group. */
  readonly within?: Span | undefined
  readonly withinHourly?: Span | undefined
  readonly withinDaily?: Span | undefined
  readonly withinWeekly?: Span | undefined
  readonly withinMonthly?: Span | undefined
  readonly withinYearly?: Span | undefined
  /** Lists of tags: a snapshot that bears all tags of one list is kept. An empty tag means "bears none". */
  readonly tags?: readonly (readonly string[])[] | undefined
}

/** What the rules look at; repository snapshots fit. */
export type Retained = {
  readonly id: string
  /** RFC 3339 with the offset of the clock that it was taken by. */
  readonly time: string
  readonly paths: readonly string[]
  readonly hostname?: string | undefined
  readonly tags?: readonly string[] | undefined
}

export type KeepOptions = {
  /** Milliseconds since 1970: snapshots stamped later do not count as the newest. */
  readonly nowMs: number
  readonly local?: LocalOffset | undefined
}

/** A kept snapshot and the rules that want it. */
export type KeepReason<T> = {
  readonly snapshot: T
  readonly matches: readonly string[]
}

export type KeepDecision<T> = {
  /** Newest first, all three. */
  readonly keep: readonly T[]
  readonly remove: readonly T[]
  readonly reasons: readonly KeepReason<T>[]
}

const counted = [
  ['last', undefined, 'last snapshot'],
  ['hourly', 'hour', 'hourly snapshot'],
  ['daily', 'day', 'daily snapshot'],
  ['weekly', 'week', 'weekly snapshot'],
  ['monthly', 'month', 'monthly snapshot'],
  ['yearly', 'year', 'yearly snapshot'],
] as const satisfies readonly (readonly [keyof KeepRules, Unit | undefined, string])[]

const within = [
  ['withinHourly', 'hour', 'hourly within'],
  ['withinDaily', 'day', 'daily within'],
  ['withinWeekly', 'week', 'weekly within'],
  ['withinMonthly', 'month', 'monthly within'],
  ['withinYearly', 'year', 'yearly within'],
] as const satisfies readonly (readonly [keyof KeepRules, Unit, string])[]

/** Whether no rule says anything: applied, they would remove every snapshot. */
export function areEmptyRules(rules: KeepRules): boolean {
  return (
    counted.every(([field]) => (rules[field] ?? 0) === 0) &&
    within.every(([field]) => isEmptySpan(rules[field] ?? noSpan)) &&
    isEmptySpan(rules.within ?? noSpan) &&
    (rules.tags ?? []).length === 0
  )
}

const noSpan: Span = { years: 0, months: 0, days: 0, hours: 0 }

type Dated<T> = { readonly snapshot: T; readonly time: ZonedTime }

/** A rule that keeps the newest snapshot of each period, as long as its count lasts or its span reaches. */
type Rule = {
  readonly unit: Unit | undefined
  readonly name: string
  /** Snapshots at or before this instant are none of its business. */
  readonly afterNs: bigint | undefined
  /** Periods left to keep, `unlimited` for no bound. */
  left: number
  /** The last period kept; none is negative but this. */
  period: number
}

/**
 * Decides which snapshots of one group to keep. Where a counted rule has counts left at the end, or a span is not
 * filled, it keeps the oldest snapshot as well, so that the history reaches back as far as it can.
 * Snapshots of the same time are taken in the order of their ids.
 */
export function decideKeep<T extends Retained>(
  snapshots: readonly T[],
  rules: KeepRules,
  options: KeepOptions,
): KeepDecision<T> {
  const { nowMs, local = systemOffset } = options
  const dated = snapshots
    .map((snapshot): Dated<T> => ({ snapshot, time: parseZoned(snapshot.time, local) }))
    .sort(newestFirst)
  const newest = newestOf(dated, BigInt(nowMs) * 1_000_000n)
  const reach = (span: Span | undefined) =>
    span && !isEmptySpan(span) ? before(newest, span, local) : undefined
  const everythingAfter = reach(rules.within)
  const periodic = [...countedRules(rules), ...withinRules(rules, reach)]
  const decision = { keep: [] as T[], remove: [] as T[], reasons: [] as KeepReason<T>[] }
  for (const [index, { snapshot, time }] of dated.entries()) {
    const isOldest = index === dated.length - 1
    const matches = (rules.tags ?? []).flatMap((tags) =>
      hasTags(snapshot, tags) ? [`has tags [${tags.join(', ')}]`] : [],
    )
    if (everythingAfter !== undefined && time.ns > everythingAfter) {
      matches.push(`within ${formatSpan(rules.within ?? noSpan)}`)
    }
    for (const rule of periodic) {
      const period = rule.unit ? periodOf(time, rule.unit) : index
      const match = matchRule(rule, { period, ns: time.ns, isOldest })
      if (match) matches.push(match)
    }
    if (matches.length === 0) decision.remove.push(snapshot)
    else {
      decision.keep.push(snapshot)
      decision.reasons.push({ snapshot, matches })
    }
  }
  return decision
}

function newestFirst<T extends Retained>(a: Dated<T>, b: Dated<T>): number {
  if (a.time.ns !== b.time.ns) return a.time.ns > b.time.ns ? -1 : 1
  return a.snapshot.id < b.snapshot.id ? -1 : 1
}

/** The newest time that is past; the beginning of Go's calendar when all lie ahead. */
function newestOf(dated: readonly Dated<Retained>[], nowNs: bigint): ZonedTime {
  const beginning: ZonedTime = { ns: -62_135_596_800_000_000_000n, offsetMs: 0, zone: 'fixed' }
  return dated.find(({ time }) => time.ns < nowNs)?.time ?? beginning
}

function countedRules(rules: KeepRules): Rule[] {
  return counted.flatMap(([field, unit, name]) => {
    const left = rules[field] ?? 0
    return left === 0 ? [] : [{ unit, name, left, afterNs: undefined, period: -1 }]
  })
}

function withinRules(
  rules: KeepRules,
  reach: (span: Span | undefined) => bigint | undefined,
): Rule[] {
  return within.flatMap(([field, unit, name]) => {
    const afterNs = reach(rules[field])
    const text = formatSpan(rules[field] ?? noSpan)
    return afterNs === undefined
      ? []
      : [{ unit, name: `${name} ${text}`, left: unlimited, afterNs, period: -1 }]
  })
}

/** The reason for which the rule keeps the snapshot, undefined when it does not; counts it down. */
function matchRule(
  rule: Rule,
  at: { readonly period: number; readonly ns: bigint; readonly isOldest: boolean },
): string | undefined {
  if (rule.left === 0 || (rule.afterNs !== undefined && at.ns <= rule.afterNs)) return undefined
  const isNew = at.period !== rule.period
  if (!isNew && !at.isOldest) return undefined
  rule.period = at.period
  if (rule.left > 0) rule.left -= 1
  return isNew ? rule.name : `oldest ${rule.name}`
}

/** Whether the snapshot bears all the tags; an empty one is satisfied by a snapshot without any. */
export function hasTags(snapshot: Pick<Retained, 'tags'>, tags: readonly string[]): boolean {
  const borne = snapshot.tags ?? []
  for (const tag of tags) {
    if (tag === '' && borne.length === 0) return true
    if (!borne.includes(tag)) return false
  }
  return true
}

/** Reads the count of a rule: a number, or `unlimited`. */
export function parseCount(option: string, text: string): number {
  if (text === 'unlimited' || text === '-1') return unlimited
  if (/^\d{1,9}$/.test(text)) return Number(text)
  throw new Fault('usage', `read ${option} '${text}': it is no count`, {
    hint: "Give a number from 0 up, or 'unlimited'.",
  })
}

/** Reads the span of a rule, `1y5m7d2h`. */
export function parseWithin(option: string, text: string): Span {
  const span = parseSpan(text)
  if (span) return span
  throw new Fault('usage', `read ${option} '${text}': it is no span of time`, {
    hint: 'Give years, months, days, hours, as in 1y5m7d2h.',
  })
}

/** Reads `a,b`: tags that belong together. */
export function parseTags(text: string): readonly string[] {
  return text.split(',').map((tag) => tag.trim())
}
