import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Relation, RowRun } from '#change/batch'
import { hidesCascade } from './parts.ts'
import { Since } from './since.ts'

const at = (text: string, history = 'h') => ({ history, at: text })

function relationOf(...name: string[]): Relation {
  return { id: 1, name, columns: [], form: 'neutral', before: 'full' }
}

test('what a table was copied with is dropped, what some of its chunks have converges, and later changes are written', () => {
  const tables = [
    { name: ['a', 'whole'], first: at('20'), last: at('20') },
    { name: ['a', 'half'], first: at('10'), last: at('20') },
  ]
  const since = new Since(tables, at('05'))
  assert.deepEqual([since.start.at, since.last.at], ['10', '20'])
  const judged = (table: string) =>
    ['10', '11', '20', '21'].map((text) => since.judge(relationOf('a', table), at(text)))
  assert.deepEqual(judged('whole'), ['drop', 'drop', 'drop', 'write'])
  assert.deepEqual(judged('half'), ['drop', 'converge', 'converge', 'write'])
  assert.deepEqual(judged('later'), ['write', 'write', 'write', 'write'])
  assert.equal(since.judge(relationOf('a', 'half'), at('11', 'other')), 'write')
  assert.equal(since.judge(relationOf('a', 'half'), undefined), 'write')
  assert.deepEqual(
    ['10', '11', '20'].map((text) => [since.isCopied(at(text)), since.isMixed(at(text))]),
    [
      [true, true],
      [false, true],
      [false, false],
    ],
  )
})

test('a copy without tables begins where its first reader was, and one of two histories is refused', () => {
  assert.equal(new Since([], at('05')).start.at, '05')
  const tables = [{ name: ['a', 't'], first: at('1'), last: at('1', 'other') }]
  assert.throws(() => new Since(tables, at('1')), { code: 'source-changed' })
})

test('a cascade that no log tells is missed where its parent is newer than other tables', () => {
  const tables = [
    { name: ['a', 'child'], first: at('10'), last: at('10') },
    { name: ['a', 'parent'], first: at('20'), last: at('20') },
  ]
  const since = new Since(tables, at('10'))
  const hides = (table: string, text: string, more: Partial<RowRun> = {}) => {
    const run: RowRun = {
      kind: 'delete',
      relation: relationOf('a', table),
      rows: 1,
      bytes: Buffer.alloc(0),
      cells: new Int32Array(0),
      cascades: true,
      ...more,
    }
    return hidesCascade([run], at(text), since)
  }
  assert.deepEqual(
    ['10', '11', '20', '21'].map((text) => hides('parent', text)),
    [false, true, true, false],
  )
  assert.equal(hides('child', '11'), false)
  assert.equal(hides('parent', '11', { cascades: false }), false)
  assert.equal(hides('parent', '11', { kind: 'insert' }), false)
})
