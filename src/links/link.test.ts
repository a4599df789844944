import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Phase } from '#change/schema'
import { type At, decide, type LinkAction, type LinkEvent, newLink } from './link.ts'

const both: readonly Phase[] = ['schema', 'copy']
const states: readonly At[] = ['new', 'planned', 'making', 'copying', 'ending', 'done']

/** Every kind of event, with each of what it may bring. */
const events = {
  begin: { kind: 'begun', recorded: undefined, resume: false },
  'begin, resume': { kind: 'begun', recorded: undefined, resume: true },
  'again, planned': { kind: 'begun', recorded: 'planned', resume: false },
  'again, done': { kind: 'begun', recorded: 'done', resume: false },
  'resume planned': { kind: 'begun', recorded: 'planned', resume: true },
  'resume making': { kind: 'begun', recorded: 'making', resume: true },
  'resume copying': { kind: 'begun', recorded: 'copying', resume: true },
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
  tidied: { kind: 'tidied' },
} as const satisfies Readonly<Record<string, LinkEvent>>

type EventName = keyof typeof events
/** The next state, and the action in a word. */
type Cell = readonly [At, string]

const cells: Readonly<Record<At, Partial<Record<EventName, Cell>>>> = {
  new: {
    begin: ['new', 'check'],
    'begin, resume': ['new', 'refuse missing'],
    'again, planned': ['new', 'refuse exists'],
    'again, done': ['new', 'refuse exists'],
    'resume planned': ['planned', 'record'],
    'resume making': ['making', 'make rows'],
    'resume copying': ['copying', 'copy'],
    'resume ending': ['ending', 'make table'],
    'resume done': ['done', 'end'],
    fit: ['planned', 'record'],
    unfit: ['new', 'refuse refused'],
    'dry, unfit': ['new', 'end'],
  },
  planned: { recorded: ['making', 'make rows'] },
  making: { 'made rows': ['copying', 'copy'] },
  copying: { copied: ['ending', 'make table'] },
  ending: {
    'made table': ['ending', 'make end'],
    'made end': ['ending', 'tidy'],
    tidied: ['done', 'end'],
  },
  done: {},
}

test('decide() answers every state and event, and no other pair passes', () => {
  let pairs = 0
  for (const at of states) {
    for (const name of Object.keys(events) as EventName[]) {
      const state = { at, phases: both }
      const cell = cells[at][name]
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
  assert.equal(pairs, states.length * Object.keys(events).length)
})

test('a link of one phase leaves out what belongs to the other', () => {
  assert.deepEqual(path(['schema']), ['record', 'make rows', 'make table', 'make end', 'end'])
  assert.deepEqual(path(['copy']), ['record', 'copy', 'tidy', 'end'])
  assert.deepEqual(path(both), [
    'record',
    'make rows',
    'copy',
    'make table',
    'make end',
    'tidy',
    'end',
  ])
})

test('a link that is resumed in any state comes to the same end', () => {
  for (const recorded of ['planned', 'making', 'copying', 'ending', 'done'] as const) {
    const begun = { kind: 'begun', recorded, resume: true } as const
    assert.equal(path(both, begun).at(-1), 'end', recorded)
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
  if (action.kind === 'make') return `make ${action.stage}`
  return action.kind === 'refuse' ? `refuse ${action.code}` : action.kind
}
