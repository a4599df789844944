import { Fault } from '#base/faults'
import type { Commit, LogReader, Position, Target } from '#change'
import { CommitFinder, wantsBody } from './binlog/commits.ts'
import { decodeQuery, eventType } from './binlog/event.ts'
import { readEvents } from './binlog/stream.ts'
import { comparePlaces, formatPlace, parsePlace } from './position.ts'

/** What a replay will do, known before the target is touched. */
export type ReplayPlan = {
  /** So many transactions, counted from the base on. */
  readonly transactions: number
  readonly last: Commit | undefined
  readonly reached: Position
}

/** Reads the log once to find where to stop: commits carry their times at their ends, and nothing is undone later. */
export async function planReplay(
  archive: LogReader,
  first: Position,
  target: Target,
  options: {
    readonly signal: AbortSignal
    /** Shown every statement that the replay would run as text. */
    readonly onStatement?: ((sql: Buffer, database: string) => void) | undefined
  },
): Promise<ReplayPlan> {
  const finder = new CommitFinder()
  let plan: ReplayPlan = { transactions: 0, last: undefined, reached: first }
  let found = target.kind !== 'commit'
  const wants = ({ type }: { readonly type: number }) => wantsBody(type)
  for await (const event of readEvents(archive, first, { signal: options.signal, wants })) {
    if (event.header.type === eventType.formatDescription) finder.reset()
    const { header, body } = event
    const isQuery = header.type === eventType.query || header.type === eventType.queryCompressed
    if (body && isQuery && options.onStatement) {
      const { sql, database } = decodeQuery(body, header.type)
      options.onStatement(sql, database.toString())
    }
    const ended = finder.take(header, body)
    if (!ended) continue
    const commit = { at: formatPlace(event.end), timeUs: ended.timeUs, id: ended.id }
    if (isBeyond(target, commit, event.history === first.history)) break
    const reached = { history: event.history, at: commit.at }
    plan = { transactions: plan.transactions + 1, last: commit, reached }
    if (target.kind === 'commit' && commit.id === target.id) {
      found = true
      break
    }
  }
  if (!found && target.kind === 'commit') {
    throw new Fault(
      'refused',
      `restore to transaction ${target.id}: the archived log has none such`,
      { hint: 'redoubt window shows what can be restored.' },
    )
  }
  return plan
}

function isBeyond(target: Target, commit: Commit, sameHistory: boolean): boolean {
  switch (target.kind) {
    case 'time':
      return commit.timeUs > target.timeUs
    case 'position':
      return sameHistory && comparePlaces(parsePlace(commit.at), parsePlace(target.at)) > 0
    case 'latest':
    case 'commit':
      return false
    case 'name':
      throw new Fault('usage', `restore to point ${target.name}: this engine names no points`, {
        hint: 'Give a time, a GTID, or file:position.',
      })
  }
}
