import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Phase } from '#change/schema'
import { type At, decide, type LinkAction, type LinkEvent, newLink } from './link.ts'

const both: readonly Phase[] = ['schema', 'copy']
const all: readonly Phase[] = ['schema', 'copy', 'changes']
const states: readonly At[] = [
  'new',
  'planned',
  'making',
  'copying',
  'readying',
  'changing',
  'ending',
  'done',
]

/** Every kind of event, with each of what it may bring. */
const events = {
  begin: { kind: 'begun', recorded: undefined, resume: false },
  'begin, resume': { kind: 'begun', recorded: undefined, resume: true },
  'again, planned': { kind: 'begun', recorded: 'planned', resume: false },
  'again, done': { kind: 'begun', recorded: 'done', resume: false },
  'resume planned': { kind: 'begun', recorded: 'planned', resume: true },
  'resume making': { kind: 'begun', recorded: 'making', resume: true },
  'resume copying': { kind: 'begun', recorded: 'copying', resume: true },
  'resume readying': { kind: 'begun', recorded: 'readying', resume: true },
  'resume changing': { kind: 'begun', recorded: 'changing', resume: true },
  'resume ending': { kind: 'begun', recorded: 'ending', resume: true },
  'resume done': { kind: 'begun', recorded: 'done', resume: true },
  fit: { kind: 'checked', blocking: 0, dryRun: false },
  unfit: { kind: 'checked', blocking: 2, dryRun: false },
  'dry, unfit': { kind: 'checked', blocking: 1, dryRun: true },
  recorded: { kind: 'recorded' },
  'made rows': { kind: 'made', stage: 'rows' },
  'made table': { kind: 'made', stage: 'table' },
  'made end': { kind: 'made', stage: 'end' },
  copied: { kind: 'copied' },
  carried: { kind: 'carried' },
  read: { kind: 'read' },
  tidied: { kind: 'tidied' },
} as const satisfies Readonly<Record<string, LinkEvent>>

type EventName = keyof typeof events
/** The next state, and the action in a word. */
type Cell = readonly [At, string]

type Cells = Readonly<Record<At, Partial<Record<EventName, Cell>>>>

/** Of a link without changes nothing but its resumption leads to their states. */
const cells: Cells = {
  new: {
    begin: ['new', 'check'],
    'begin, resume': ['new', 'refuse missing'],
    'again, planned': ['new', 'refuse exists'],
    'again, done': ['new', 'refuse exists'],
    'resume planned': ['planned', 'record'],
    'resume making': ['making', 'make rows'],
    'resume copying': ['copying', 'copy'],
    'resume readying': ['readying', 'make table, quiet'],
    'resume changing': ['changing', 'carry'],
    'resume ending': ['ending', 'make table'],
    'resume done': ['done', 'end'],
    fit: ['planned', 'record'],
    unfit: ['new', 'refuse refused'],
    'dry, unfit': ['new', 'end'],
  },
  planned: { recorded: ['making', 'make rows'] },
  making: { 'made rows': ['copying', 'copy'] },
  copying: { copied: ['ending', 'make table'] },
  readying: {
    'made table': ['readying', 'make end, quiet'],
    'made end': ['readying', 'tidy copy'],
    tidied: ['changing', 'carry'],
  },
  changing: { carried: ['ending', 'make table'] },
  ending: {
    'made table': ['ending', 'make end'],
    'made end': ['ending', 'tidy copy'],
    tidied: ['done', 'end'],
  },
  done: {},
}

const withChanges: Cells = {
  ...cells,
  new: { ...cells.new, 'resume ending': ['ending', 'read'] },
  copying: { copied: ['readying', 'make table, quiet'] },
  changing: { carried: ['ending', 'read'] },
  ending: {
    ...cells.ending,
    read: ['ending', 'make table'],
    'made end': ['ending', 'tidy link'],
  },
}

test('decide() answers every state and event, and no other pair passes', () => {
  let pairs = 0
  const names = Object.keys(events) as EventName[]
  const every = [both, all].flatMap((phases) => states.map((at) => ({ at, phases })))
  for (const state of every) {
    const { at, phases } = state
    for (const name of names) {
      const cell = (phases === both ? cells : withChanges)[at][name]
      pairs += 1
      if (cell === undefined) {
        assert.throws(() => decide(state, events[name]), /broken invariant/, `${at}, ${name}`)
        continue
      }
      const decision = decide(state, events[name])
      const found = [decision.state.at, word(decision.action)]
      assert.deepEqual(found, cell, `${at}, ${name}`)
      assert.notEqual(decision.said, '')
    }
  }
  assert.equal(pairs, 2 * states.length * Object.keys(events).length)
})

test('a link of one phase leaves out what belongs to the other', () => {
  assert.deepEqual(path(['schema']), ['record', 'make rows', 'make table', 'make end', 'end'])
  assert.deepEqual(path(['copy']), ['record', 'copy', 'tidy copy', 'end'])
  assert.deepEqual(path(both), [
    'record',
    'make rows',
    'copy',
    'make table',
    'make end',
    'tidy copy',
    'end',
  ])
  const readied = ['tidy copy', 'carry']
  assert.deepEqual(path(['copy', 'changes']), ['record', 'copy', ...readied, 'tidy link', 'end'])
  assert.deepEqual(path(all), [
    'record',
    'make rows',
    'copy',
    'make table, quiet',
    'make end, quiet',
    ...readied,
    'read',
    'make table',
    'make end',
    'tidy link',
    'end',
  ])
})

test('a link that is resumed in any state comes to the same end', () => {
  for (const recorded of states) {
    if (recorded === 'new') continue
    const begun = { kind: 'begun', recorded, resume: true } as const
    for (const phases of [both, all]) assert.equal(path(phases, begun).at(-1), 'end', recorded)
  }
})

/** The actions of a link that nothing stops. */
function path(phases: readonly Phase[], first: LinkEvent = events.fit): string[] {
  const actions: string[] = []
  let state = newLink(phases)
  for (let event: LinkEvent | undefined = first; event; ) {
    const decision = decide(state, event)
    state = decision.state
    actions.push(word(decision.action))
    event = answer(decision.action)
  }
  return actions
}

function answer(action: LinkAction): LinkEvent | undefined {
  switch (action.kind) {
    case 'check':
      return events.fit
    case 'record':
      return { kind: 'recorded' }
    case 'make':
      return { kind: 'made', stage: action.stage }
    case 'copy':
      return { kind: 'copied' }
    case 'carry':
      return { kind: 'carried' }
    case 'read':
      return { kind: 'read' }
    case 'tidy':
      return { kind: 'tidied' }
    case 'end':
    case 'refuse':
      return undefined
    default:
      return action satisfies never
  }
}

function word(action: LinkAction): string {
  if (action.kind === 'make') return `make ${action.stage}${action.quiet ? ', quiet' : ''}`
  if (action.kind === 'tidy') return `tidy ${action.of}`
  return action.kind === 'refuse' ? `refuse ${action.code}` : action.kind
}
