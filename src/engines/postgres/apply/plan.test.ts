import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Dice } from '../../../../test/support/dice.ts'
import {
  type Cell,
  formOf,
  relationOf,
  runOf,
  textOf,
} from '../../../../test/support/postgres-runs.ts'
import type { RowRun } from '#change/batch'
import { planChanges, type RowChange, type Step } from './plan.ts'
import { PreparedTable } from './table.ts'

type Row = { n: Cell; big: Cell }

const columns = ['id', 'n', 'big'] as const

function tableOf(type = 'integer', sameness: 'bytes' | 'number' | 'unknown' = 'bytes') {
  const relation = relationOf(columns, type)
  return new PreparedTable(relation, formOf(columns, type, sameness))
}

/** Makes changes that fit one on the other, in runs as a log has them. */
function load(dice: Dice, table: PreparedTable, rows: Map<string, Row>, count: number): RowRun[] {
  const runs: RowRun[] = []
  for (let made = 0; made < count; ) {
    const id = String(dice.roll(12))
    const row = rows.get(id)
    const n = String(dice.roll(1000))
    const big = dice.roll(2) === 0 ? undefined : `b${dice.roll(1000)}`
    const other = String(dice.roll(12))
    const kind = dice.roll(4)
    if (!row && kind === 0) {
      runs.push(runOf(table.relation, 'insert', [[id, n, big ?? null]]))
      rows.set(id, { n, big: big ?? null })
    } else if (row && kind === 1) {
      runs.push(runOf(table.relation, 'delete', [[id, undefined, undefined]]))
      rows.delete(id)
    } else if (row && kind === 2) {
      runs.push(
        runOf(table.relation, 'update', [
          [id, undefined, undefined],
          [id, n, big],
        ]),
      )
      rows.set(id, { n, big: big === undefined ? row.big : big })
    } else if (row && kind === 3 && !rows.has(other)) {
      runs.push(
        runOf(table.relation, 'update', [
          [id, undefined, undefined],
          [other, n, undefined],
        ]),
      )
      rows.delete(id)
      rows.set(other, { n, big: row.big })
    } else continue
    made += 1
  }
  return runs
}

/** What statements would do: each row meets what it expects. */
function run(steps: readonly Step[], rows: Map<string, Row>): void {
  for (const step of steps) {
    assert.ok(step.kind !== 'truncate')
    const touched = new Set<string>()
    for (const change of step.changes) {
      const key = idOf(change)
      if (step.kind !== 'single') assert.ok(!touched.has(key), `row ${key} twice in a statement`)
      touched.add(key)
      assert.equal(rows.has(key), change.kind !== 'insert', `${change.kind} of ${key}`)
      take(change, key, rows)
    }
  }
}

function idOf(change: RowChange): string {
  return String(textOf(change.run, change.before >= 0 ? change.before : change.after))
}

function take(change: RowChange, key: string, rows: Map<string, Row>): void {
  const old = rows.get(key)
  rows.delete(key)
  if (change.kind === 'delete') return
  const [id, n, big] = [0, 2, 4].map((at) => textOf(change.run, change.after + at))
  const target = String(id)
  assert.ok(!rows.has(target), `row ${target} is in the way`)
  rows.set(target, { n, big: big === undefined ? old?.big : big })
}

test('planChanges: statements leave what the changes leave one by one, and touch each row once', () => {
  for (let seed = 1; seed <= 300; seed += 1) {
    const dice = new Dice(seed)
    const table = tableOf()
    const [source, target] = [new Map<string, Row>(), new Map<string, Row>()]
    for (let write = 0; write < 3; write += 1) {
      const runs = load(dice, table, source, 40)
      run(
        planChanges(runs, () => table),
        target,
      )
      assert.deepEqual(sorted(target), sorted(source), `seed ${seed}`)
    }
  }
})

function sorted(rows: ReadonlyMap<string, Row>): unknown {
  return [...rows].toSorted(([a], [b]) => a.localeCompare(b))
}

test('planChanges: rows that do not meet go together, whatever the order they came in', () => {
  const table = tableOf()
  const key = (id: number) => [String(id), undefined, undefined]
  const runs: RowRun[] = []
  for (let id = 0; id < 100; id += 1) {
    runs.push(runOf(table.relation, 'insert', [[String(id + 1000), '1', null]]))
    runs.push(runOf(table.relation, 'update', [key(id), [String(id), '2', 'x']]))
    runs.push(runOf(table.relation, 'update', [key(5000), ['5000', String(id), 'x']]))
    runs.push(runOf(table.relation, 'delete', [key(id + 2000)]))
  }
  const steps = planChanges(runs, () => table)
  assert.deepEqual(
    steps.map((step) => [step.kind, 'changes' in step && step.changes.length]),
    [
      ['delete', 100],
      ['update', 101],
      ['insert', 100],
    ],
  )
})

test('planChanges: keys that are one by their type are one; where that is not known changes stay in order', () => {
  const key = (id: string) => [id, undefined, undefined]
  const runs = (table: PreparedTable) => [
    runOf(table.relation, 'delete', [key('1.0')]),
    runOf(table.relation, 'insert', [['1.00', '1', null]]),
    runOf(table.relation, 'delete', [key('1')]),
    runOf(table.relation, 'insert', [
      ['2', '1', null],
      ['3', '1', null],
    ]),
  ]
  const kinds = (table: PreparedTable) =>
    planChanges(runs(table), () => table).map((step) => [
      step.kind,
      'changes' in step &&
        step.changes.map((one) => textOf(one.run, Math.max(one.before, one.after))),
    ])
  assert.deepEqual(kinds(tableOf('numeric', 'number')), [
    ['delete', ['1.0']],
    ['insert', ['1.00', '2', '3']],
    ['delete', ['1']],
  ])
  assert.deepEqual(kinds(tableOf('jsonb', 'unknown')), [
    ['single', ['1.0']],
    ['insert', ['1.00']],
    ['single', ['1']],
    ['insert', ['2', '3']],
  ])
})

test('keys: what an index takes for equal has equal hashes', () => {
  const hash = (table: PreparedTable, kind: RowRun['kind'], ...images: Cell[][]) => [
    ...table.keys(runOf(table.relation, kind, images)),
  ]
  const numbers = tableOf('numeric', 'number')
  const of = (id: string) => hash(numbers, 'insert', [id, '1', null])
  assert.deepEqual(of('1.50'), of('1.5'))
  assert.deepEqual(of('10.00'), of('10'))
  assert.notDeepEqual(of('100'), of('1'))
  assert.deepEqual(hash(numbers, 'delete', ['7', undefined, undefined]), of('7.0'))
  const moved = hash(numbers, 'update', ['7', undefined, undefined], ['8', '1', null])
  assert.deepEqual(moved, [...of('7'), ...of('8')])
  assert.deepEqual(hash(numbers, 'update', ['7', undefined, undefined], ['7', '1', null]), of('7'))
  const unknown = tableOf('jsonb', 'unknown')
  assert.deepEqual(
    hash(unknown, 'insert', ['1', '1', null]),
    hash(unknown, 'insert', ['2', '2', null]),
  )
})

test('keys: a second key counts by its values, and NULL is like no other', () => {
  const relation = relationOf(columns, 'integer')
  const table = new PreparedTable(relation, formOf(columns, 'integer', 'bytes', 'n'))
  const hash = (id: string, n: Cell) => [...table.keys(runOf(relation, 'insert', [[id, n, null]]))]
  const shared = (n: Cell, other: Cell) => {
    const second = new Set(hash('2', other))
    return hash('1', n).filter((one) => second.has(one)).length
  }
  assert.equal(shared('5', '5'), 1)
  assert.equal(shared('5', '6'), 0)
  assert.equal(shared(null, null), 0)
})
