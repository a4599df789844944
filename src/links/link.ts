import { assert, type Code } from '#base/faults'
import type { Phase, Stage } from '#change/schema'

/** Where a link stands: SPEC.md has the table. Recorded from `planned` on, each before what it stands for is done. */
export type At =
  | 'new'
  | 'planned'
  | 'making'
  | 'copying'
  | 'readying'
  | 'changing'
  | 'ending'
  | 'done'

export type LinkState = { readonly at: At; readonly phases: readonly Phase[] }

export type LinkEvent =
  /** The command began; `recorded` is where the state directory says that the link stands. */
  | {
      readonly kind: 'begun'
      readonly recorded: Exclude<At, 'new'> | undefined
      readonly resume: boolean
    }
  /** Both ends were looked at, and the findings were shown. */
  | { readonly kind: 'checked'; readonly blocking: number; readonly dryRun: boolean }
  /** The plan is in the state directory. */
  | { readonly kind: 'recorded' }
  | { readonly kind: 'made'; readonly stage: Stage }
  | { readonly kind: 'copied' }
  /** The changes have come to the end that was asked for. */
  | { readonly kind: 'carried' }
  /** What is not made yet was read again from the source. */
  | { readonly kind: 'read' }
  | { readonly kind: 'tidied' }

export type LinkAction =
  | { readonly kind: 'check' }
  | { readonly kind: 'record' }
  /** `quiet`: without what acts by itself or holds what is true at the end only, while changes are still to come. */
  | { readonly kind: 'make'; readonly stage: Stage; readonly quiet: boolean }
  | { readonly kind: 'copy' }
  | { readonly kind: 'carry' }
  | { readonly kind: 'read' }
  /** `link`: also what both ends keep for the changes. */
  | { readonly kind: 'tidy'; readonly of: 'copy' | 'link' }
  | { readonly kind: 'end' }
  | { readonly kind: 'refuse'; readonly code: Code; readonly why: string; readonly hint: string }

export type LinkDecision = {
  readonly state: LinkState
  readonly action: LinkAction
  readonly said: string
}

export const newLink = (phases: readonly Phase[]): LinkState => ({ at: 'new', phases })

/** What a link does next. Pure: the loop in migrate.ts records the state, and then performs the action. */
export function decide(state: LinkState, event: LinkEvent): LinkDecision {
  switch (event.kind) {
    case 'begun':
      assert(state.at === 'new', `a link begins once, not when ${state.at}`)
      return begin(state, event.recorded, event.resume)
    case 'checked':
      assert(state.at === 'new', `a link is checked before it is planned, not when ${state.at}`)
      return afterCheck(state, event.blocking, event.dryRun)
    case 'recorded':
      assert(state.at === 'planned', `a plan is recorded when planned, not when ${state.at}`)
      return enter(state, state.phases.includes('schema') ? 'making' : 'copying')
    case 'made':
      return afterMaking(state, event.stage)
    case 'copied':
      assert(state.at === 'copying', `rows are copied when copying, not when ${state.at}`)
      return enter(state, state.phases.includes('changes') ? 'readying' : 'ending')
    case 'carried':
      assert(state.at === 'changing', `changes are carried when changing, not when ${state.at}`)
      return enter(state, 'ending')
    case 'read':
      assert(
        state.at === 'ending' && state.phases.includes('changes'),
        `objects are read again when changes end, not when ${state.at}`,
      )
      return make(state, 'table')
    case 'tidied':
      if (state.at === 'readying') return enter(state, 'changing')
      assert(state.at === 'ending', `a link is tidied when ending, not when ${state.at}`)
      return enter(state, 'done')
    default:
      return event satisfies never
  }
}

function begin(
  state: LinkState,
  recorded: Exclude<At, 'new'> | undefined,
  resume: boolean,
): LinkDecision {
  if (recorded === undefined && resume) {
    return refuse(state, 'missing', 'there is nothing to resume', {
      hint: 'Leave out --resume to begin, or name the --state of the one that was interrupted.',
    })
  }
  if (recorded !== undefined && !resume) {
    const why =
      recorded === 'done' ? 'it was done before' : 'it was begun before and is not done yet'
    return refuse(state, 'exists', why, {
      hint:
        recorded === 'done'
          ? 'To do it again, name another --state, or remove that directory.'
          : 'Go on with --resume; or remove that directory and what was made on the target.',
    })
  }
  if (recorded === undefined) return { state, action: { kind: 'check' }, said: 'checks both ends' }
  return enter(state, recorded)
}

function afterCheck(state: LinkState, blocking: number, dryRun: boolean): LinkDecision {
  if (dryRun) return { state, action: { kind: 'end' }, said: 'shows what would be made' }
  if (blocking > 0) {
    const why =
      blocking === 1 ? 'one finding stands in its way' : `${blocking} findings stand in its way`
    return refuse(state, 'refused', why, {
      hint: 'Mend what is marked as blocking, and start it again: nothing was written.',
    })
  }
  return enter(state, 'planned')
}

function afterMaking(state: LinkState, stage: Stage): LinkDecision {
  switch (stage) {
    case 'rows':
      assert(state.at === 'making', `tables are made when making, not when ${state.at}`)
      return enter(state, state.phases.includes('copy') ? 'copying' : 'ending')
    case 'table':
      assert(
        state.at === 'ending' || state.at === 'readying',
        `what is left of the tables is made when readying or ending, not when ${state.at}`,
      )
      return make(state, 'end')
    case 'end':
      assert(
        state.at === 'ending' || state.at === 'readying',
        `the last objects are made when readying or ending, not when ${state.at}`,
      )
      return state.phases.includes('copy') ? tidy(state) : enter(state, 'done')
    default:
      return stage satisfies never
  }
}

const saidOfMaking: Readonly<Record<Stage, string>> = {
  rows: 'makes tables and what they need',
  table: 'makes indexes and keys',
  end: 'makes foreign keys, views, triggers and what else waits for all rows',
}

const saidOfQuiet = 'makes foreign keys, views and what else may be there while changes come'

/** What is done in a state from its beginning: also when a killed link comes back to it. */
function enter(from: LinkState, at: Exclude<At, 'new'>): LinkDecision {
  const state = { ...from, at }
  switch (at) {
    case 'planned':
      return { state, action: { kind: 'record' }, said: 'records the plan' }
    case 'making':
      return make(state, 'rows')
    case 'copying':
      return { state, action: { kind: 'copy' }, said: 'copies rows' }
    case 'readying':
      return state.phases.includes('schema') ? make(state, 'table') : tidy(state)
    case 'changing':
      return { state, action: { kind: 'carry' }, said: 'applies changes' }
    case 'ending':
      if (!state.phases.includes('schema')) return tidy(state)
      if (!state.phases.includes('changes')) return make(state, 'table')
      return { state, action: { kind: 'read' }, said: 'reads what is left to make' }
    case 'done':
      return { state, action: { kind: 'end' }, said: 'is done' }
    default:
      return at satisfies never
  }
}

function make(state: LinkState, stage: Stage): LinkDecision {
  const quiet = state.at === 'readying'
  const said = quiet && stage === 'end' ? saidOfQuiet : saidOfMaking[stage]
  return { state, action: { kind: 'make', stage, quiet }, said }
}

function tidy(state: LinkState): LinkDecision {
  const of = state.at === 'ending' && state.phases.includes('changes') ? 'link' : 'copy'
  const said =
    of === 'copy'
      ? 'removes the marks of the copy from the target'
      : 'removes from both ends what was kept for the link'
  return { state, action: { kind: 'tidy', of }, said }
}

function refuse(
  state: LinkState,
  code: Code,
  why: string,
  { hint }: { readonly hint: string },
): LinkDecision {
  return { state, action: { kind: 'refuse', code, why, hint }, said: `is refused: ${why}` }
}
