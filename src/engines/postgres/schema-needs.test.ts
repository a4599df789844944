import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Stage } from '#change/schema'
import { type Draft, inOrder } from './schema-needs.ts'

const draft = (key: string, stage: Stage): Draft => ({
  key,
  id: key,
  kind: 'other',
  name: [key],
  stage,
  statements: [],
})

const needs = (...pairs: readonly (readonly [string, string])[]) => {
  const all = new Map<string, Set<string>>()
  for (const [from, to] of pairs) all.set(from, (all.get(from) ?? new Set()).add(to))
  return all
}

test('inOrder() puts each behind what it needs, and otherwise keeps the order', () => {
  const drafts = ['c', 'a', 'b'].map((key) => draft(key, 'end'))
  const ordered = inOrder(drafts, needs(['c', 'b'], ['c', 'elsewhere']))
  assert.deepEqual(
    ordered.map(({ id, needs: of }) => [id, of]),
    [
      ['b', []],
      ['c', ['b']],
      ['a', []],
    ],
  )
})

test('inOrder() makes early what is needed early, over several steps', () => {
  const drafts = [draft('function', 'rows'), draft('view', 'end'), draft('key', 'table')]
  const ordered = inOrder(drafts, needs(['function', 'view'], ['view', 'key']))
  assert.deepEqual(
    ordered.map(({ id, stage }) => [id, stage]),
    [
      ['key', 'rows'],
      ['view', 'rows'],
      ['function', 'rows'],
    ],
  )
})

test('inOrder() ends on a circle, with every object once', () => {
  const drafts = [draft('a', 'rows'), draft('b', 'end')]
  const ordered = inOrder(drafts, needs(['a', 'b'], ['b', 'a']))
  assert.deepEqual(ordered.map(({ id }) => id).toSorted(), ['a', 'b'])
})
