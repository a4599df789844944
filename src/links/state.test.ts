import assert from 'node:assert/strict'
import { statSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import type { SchemaObject, TableShape } from '#change/schema'
import { Scratch } from '../../test/support/scratch.ts'
import { hasState, openState, type Plan } from './state.ts'

const name = ['shop', 'orders']
const shape: TableShape = {
  name,
  target: name,
  columns: [],
  keys: [],
  rowsEstimate: 5,
  sizeBytes: 1e12,
}
const objects: readonly SchemaObject[] = (['rows', 'table', 'end'] as const).map((stage) => ({
  id: `${stage} of orders`,
  kind: 'table',
  name,
  table: name,
  stage,
  statements: ['x'],
  needs: [],
}))
const plan: Plan = {
  id: 'abc',
  from: 'memory://a',
  to: 'memory://b',
  choices: { include: ['shop'], exclude: [], map: '', accounts: true, convert: false },
  phases: ['schema', 'copy'],
  objects,
  tables: [shape],
  findings: [{ severity: 'warns', code: 'slow', said: 'slow' }],
}
const chunk = { table: 0, index: 0, sizeBytes: 2 ** 41, range: '{"a":"🍊"}' }

test('what was recorded is there when it is opened again', async () => {
  using scratch = new Scratch('state')
  assert.equal(hasState(scratch.path), false)
  {
    using store = await openState(scratch.path)
    assert.equal(store.at, undefined)
    store.record(plan)
    store.planTables([{ index: 0, chunks: [chunk] }])
    const run = store.beginRun({ history: 'h', at: '5' }, 'stamp')
    assert.equal(run.run, 0)
    assert.equal(store.beginRun(undefined, undefined).run, 1)
    store.useRuns([{ table: 0, run: 1 }])
    store.made(['rows of orders'])
    store.finishTable(0, { rows: 2n ** 60n, bytes: 7, tookMs: 8 })
    store.addFinding({ severity: 'warns', code: 'mixed', said: 'mixed' })
    store.addFinding({ severity: 'warns', code: 'mixed', said: 'mixed' })
    store.stand('copying')
  }
  using store = await openState(scratch.path)
  assert.equal(store.at, 'copying')
  assert.deepEqual(store.plan(), { ...plan, objects: objects.slice(1) })
  assert.deepEqual(store.tables(), [
    { shape, chunks: [chunk], result: { rows: 2n ** 60n, bytes: 7, tookMs: 8 } },
  ])
  assert.deepEqual(
    store.runs().map(({ position, used }) => [position?.at, used]),
    [
      ['5', false],
      [undefined, true],
    ],
  )
  assert.deepEqual(store.madeKinds(), { table: 1 })
  assert.equal(store.laterFindings().length, 1)
  store.forgetPlan(0)
  assert.deepEqual(store.tables(), [{ shape, chunks: undefined, result: undefined }])
})

test('objects that are not made yet are taken as they were read last; those that are made stay', async () => {
  using scratch = new Scratch('state')
  using store = await openState(scratch.path)
  store.record(plan)
  store.made(['table of orders'])
  const later = objects.map((object) => ({ ...object, statements: ['later'] }))
  store.replaceUnmade(later)
  const found = store.objects().map(({ id, statements }) => [id, statements[0]])
  assert.deepEqual(found, [
    ['rows of orders', 'x'],
    ['end of orders', 'later'],
  ])
  assert.deepEqual(store.ownObjects(name), [])
  assert.equal(store.isUnmade('table of orders'), false)
  assert.equal(store.isUnmade('end of orders'), true)
})

test('one process at a time has a state directory open', async () => {
  using scratch = new Scratch('state')
  using _first = await openState(scratch.path)
  await assert.rejects(openState(scratch.path), (error) => isFault(error, 'locked'))
})

test('nobody else may read a state, which may hold hashes of passwords', async () => {
  using scratch = new Scratch('state')
  const directory = scratch.join('below', 'state')
  using _store = await openState(directory)
  assert.equal(statSync(directory).mode & 0o077, 0)
  assert.equal(statSync(`${directory}/link.db`).mode & 0o077, 0)
})

test('a damaged state is named, with the way out', async () => {
  using scratch = new Scratch('state')
  writeFileSync(scratch.join('link.db'), 'x'.repeat(9000))
  await assert.rejects(openState(scratch.path), (error) => isFault(error, 'corrupt'))
  writeFileSync(scratch.join('file'), '')
  await assert.rejects(openState(scratch.join('file')), (error) => isFault(error, 'usage'))
})
