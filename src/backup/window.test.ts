import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { BaseRecord, LogSpan } from '#vault'
import { computeWindows } from './window.ts'

function base(name: string, first: string, at: string, history = 'a'): BaseRecord {
  return {
    source: 'shop',
    name,
    snapshot: 'f'.repeat(64),
    first: { history, at: first },
    consistent: { history, at },
    consistentUs: BigInt(at),
    facts: {},
    recordedMs: 0,
  }
}

function span(first: string, next: string, more: Partial<LogSpan> = {}): LogSpan {
  return {
    source: 'shop',
    history: 'a',
    continues: false,
    first,
    next,
    lastCommitUs: BigInt(next),
    bytes: 1,
    objects: 1,
    ...more,
  }
}

test('a base with log behind it is a window up to the last commit', () => {
  const [window, ...more] = computeWindows([base('one', '10', '20')], [span('05', '90')])
  assert.deepEqual(more, [])
  assert.equal(window?.fromUs, 20n)
  assert.equal(window?.toUs, 90n)
  assert.equal(window?.continuous, true)
})

test('the source said to be complete later than its last commit widens the window', () => {
  const [window] = computeWindows(
    [base('one', '10', '20')],
    [span('05', '90', { completeUs: 99n })],
  )
  assert.equal(window?.toUs, 99n)
})

test('a hole splits windows, and log before the first base behind it restores nothing', () => {
  const windows = computeWindows(
    [base('one', '10', '20'), base('two', '60', '65')],
    [span('05', '40'), span('50', '90')],
  )
  assert.deepEqual(
    windows.map((w) => [w.fromUs, w.toUs, w.bases]),
    [
      [20n, 40n, ['one']],
      [65n, 90n, ['two']],
    ],
  )
})

test('a timeline switch without a hole keeps the window open', () => {
  const [window, ...more] = computeWindows(
    [base('one', '10', '20')],
    [span('05', '40'), span('40', '70', { history: 'b', continues: true })],
  )
  assert.deepEqual(more, [])
  assert.equal(window?.toUs, 70n)
  assert.deepEqual(window?.to, { history: 'b', at: '70' })
})

test('a base whose log does not reach its consistent point is one moment only', () => {
  for (const spans of [[], [span('05', '15')], [span('12', '90')]]) {
    const [window] = computeWindows([base('one', '10', '20')], spans)
    assert.equal(window?.continuous, false)
    assert.equal(window?.toUs, 20n)
  }
})
