import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { silentLog } from '#base/log'
import { createProgress } from '#base/progress'
import type { Schema, SchemaSource, TableShape } from '#change/schema'
import { Dice } from '../../test/support/dice.ts'
import {
  bytewise,
  foldcase,
  MemoryDigester,
  type MemoryRow,
  type Order,
} from '../../test/support/memory-digest.ts'
import { type Mode, verify, type VerifyOptions, type Verified } from './verify.ts'

const full: Mode = { kind: 'full' }

/** The table that both sides have; without a key when `keyed` is false. */
function shapeOf(rows: readonly MemoryRow[], keyed: boolean): TableShape {
  const column = (name: string) => ({ name, type: 'text', nullable: true, generated: false })
  const key = { name: 'PRIMARY', primary: true, columns: ['k'], identifies: true }
  return {
    name: ['d', 't'],
    target: ['d', 't'],
    columns: [column('k'), column('v')],
    keys: keyed ? [key] : [],
    rowsEstimate: rows.length,
    sizeBytes: rows.length * 20,
  }
}

function schemaOf(shape: TableShape): SchemaSource {
  const schema: Schema = {
    engine: 'mem',
    flavor: 'mem',
    version: '1.0',
    objects: [],
    tables: [shape],
    findings: [],
  }
  return { readSchema: async () => schema }
}

type Trial = {
  readonly source: MemoryDigester
  readonly target: MemoryDigester
  readonly keyed?: boolean
  readonly options?: Partial<VerifyOptions>
}

async function run({ source, target, keyed = true, options = {} }: Trial): Promise<Verified> {
  const end = (side: MemoryDigester) => ({
    facts: { engine: 'mem', flavor: 'mem', version: '1.0' },
    schema: schemaOf(shapeOf(source.rows_, keyed)),
    digest: { openDigest: async () => side },
  })
  const slept: number[] = []
  return verify({
    source: end(source),
    target: end(target),
    from: 'a',
    to: 'b',
    mode: full,
    selection: { accepts: () => true, map: (name) => name },
    unmap: (name) => name,
    parallel: 2,
    recheckMs: 16,
    namedMax: 1000,
    chunkRows: 50,
    progress: createProgress('test'),
    time: {
      now: () => 0,
      monotonicMs: () => 0,
      sleep: async (ms) => void slept.push(ms),
    },
    log: silentLog,
    signal: new AbortController().signal,
    ...options,
  })
}

const letters = Array.from('abcXYZäß_ 9')

function randomRows(dice: Dice, count: number): MemoryRow[] {
  const keys = new Set<string>()
  while (keys.size < count) {
    keys.add(Array.from({ length: 1 + dice.roll(5) }, () => dice.pick(letters)).join(''))
  }
  return [...keys].map((key) => [key, dice.roll(3) === 0 ? null : `v${dice.roll(1000)}`])
}

type Change = { readonly kind: string; readonly key: string }

/** Changes some rows of a copy, and tells which. */
function change(dice: Dice, rows: readonly MemoryRow[]): [MemoryRow[], Change[]] {
  const changes: Change[] = []
  const changed = rows.flatMap((row): MemoryRow[] => {
    const key = row[0] ?? ''
    switch (dice.roll(40)) {
      case 0:
        changes.push({ kind: 'missing', key })
        return []
      case 1:
        changes.push({ kind: 'different', key })
        return [[key, row[1] === null ? '' : null]]
      case 2:
        changes.push({ kind: 'extra', key: `${key}+` })
        return [row, [`${key}+`, null]]
      default:
        return [row]
    }
  })
  return [changed, changes]
}

function sorted(list: readonly Change[]): readonly string[] {
  return list.map(({ kind, key }) => `${kind} ${key}`).sort()
}

function found(verified: Verified): readonly string[] {
  const rows = verified.tables.flatMap((table) => table.rows)
  return sorted(rows.map(({ kind, key }) => ({ kind, key: key['k'] ?? '' })))
}

const orders: readonly (readonly [string, Order, Order])[] = [
  ['alike', bytewise, bytewise],
  ['by case on one side', foldcase, bytewise],
  ['by case on the other', bytewise, foldcase],
  ['backwards on one side', bytewise, (a, b) => bytewise(b, a)],
]

for (const [said, from, to] of orders) {
  test(`every difference is found, and no other, of keys kept ${said}`, async () => {
    for (let seed = 1; seed <= 6; seed++) {
      const dice = new Dice(seed)
      const rows = randomRows(dice, 50 + dice.roll(300))
      const [changed, changes] = change(dice, rows)
      const source = new MemoryDigester(rows, from)
      const target = new MemoryDigester(changed, to)
      // Chunks that hold all rows, and ranges that are cut again and again.
      const options = { chunkRows: seed % 2 === 0 ? 50 : 8 }
      const verified = await run({ source, target, options })
      assert.deepEqual(found(verified), sorted(changes), `seed ${seed}`)
      assert.equal(verified.equal, changes.length === 0)
      const equal = await run({ source, target: new MemoryDigester(rows, to) })
      assert.deepEqual([found(equal), equal.equal], [[], true], `seed ${seed}`)
    }
  })
}

test('a target with many more rows is cut where it has them, whatever its order', async () => {
  const few: MemoryRow[] = [['alone', '0']]
  const rows = randomRows(new Dice(3), 400)
  for (const [from, to] of [
    [few, rows],
    [rows, few],
  ] as const) {
    for (const [said, one, other] of orders) {
      const source = new MemoryDigester(from, one)
      const target = new MemoryDigester(to, other)
      const verified = await run({ source, target, options: { chunkRows: 10 } })
      const [table] = verified.tables
      assert.deepEqual([table?.missing, table?.extra], [from.length, to.length], said)
    }
  }
})

test('rows without a key are compared as a bag: of which there are too many or too few', async () => {
  const rows: MemoryRow[] = [
    ['a', null],
    ['a', null],
    ['b', ''],
    ['c', 'x'],
    ['c', 'x'],
    ['c', 'x'],
  ]
  const other: MemoryRow[] = [
    ['a', null],
    ['b', null],
    ['c', 'x'],
    ['c', 'x'],
    ['c', 'x'],
    ['d', ''],
  ]
  const [source, target] = [new MemoryDigester(rows), new MemoryDigester(other)]
  const verified = await run({ source, target, keyed: false })
  const [table] = verified.tables
  assert.deepEqual(
    table?.rows.map(({ kind, rows: count, key }) => [kind, count, key['k'], key['v']]).sort(),
    [
      ['extra', 1, 'b', null],
      ['extra', 1, 'd', ''],
      ['missing', 1, 'a', null],
      ['missing', 1, 'b', ''],
    ],
  )
  const same = new MemoryDigester(rows.toReversed())
  assert.equal((await run({ source, target: same, keyed: false })).equal, true)
})

test('few rows are listed: those of ranges that are equal are only summed up', async () => {
  const rows = randomRows(new Dice(5), 600)
  const other = rows.map((row, at): MemoryRow => (at === 234 ? [row[0] ?? '', 'other'] : row))
  const source = new MemoryDigester(rows)
  const verified = await run({
    source,
    target: new MemoryDigester(other),
    options: { chunkRows: 100 },
  })
  assert.equal(verified.tables[0]?.different, 1)
  assert.equal(source.digested, 600)
})

test('a target that follows is no difference; one that stays behind is', async () => {
  const rows: MemoryRow[] = Array.from({ length: 100 }, (_, n) => [`k${n}`, '0'])
  const [source, target] = [new MemoryDigester(rows), new MemoryDigester(rows)]
  let step = 0
  // The source writes the row k7 at each reading, the target has it one reading later; k8 came once and never arrives.
  source.onRead = () => {
    step += 1
    source.rows_ = source.rows_.map((row) => (row[0] === 'k7' ? ['k7', `${step}`] : row))
    source.rows_ = source.rows_.map((row) => (row[0] === 'k8' ? ['k8', 'new'] : row))
  }
  target.onRead = () => {
    target.rows_ = target.rows_.map((row) => (row[0] === 'k7' ? ['k7', `${step - 1}`] : row))
  }
  const verified = await run({ source, target })
  assert.deepEqual(found(verified), ['different k8'])
  assert.equal(verified.tables[0]?.changing, 0)
})

test('a row that changes at every look is told, and not taken for a difference or for equal', async () => {
  const rows: MemoryRow[] = [
    ['a', '0'],
    ['b', '0'],
  ]
  const [source, target] = [new MemoryDigester(rows), new MemoryDigester(rows)]
  let step = 1
  source.onRead = () => {
    source.rows_ = [
      ['a', `${step++}`],
      ['b', '0'],
    ]
  }
  const verified = await run({ source, target, options: { repair: 'apply' } })
  const [table] = verified.tables
  assert.deepEqual([table?.changing, table?.different, verified.equal], [1, 0, false])
  assert.deepEqual(target.applied, [])
})

test('a repair makes the target equal, by key and without', async () => {
  for (const keyed of [true, false]) {
    for (let seed = 1; seed <= 4; seed++) {
      const dice = new Dice(seed)
      const rows = randomRows(dice, 300)
      const [changed, changes] = change(dice, rows)
      const [source, target] = [new MemoryDigester(rows), new MemoryDigester(changed)]
      const verified = await run({ source, target, keyed, options: { repair: 'apply' } })
      assert.equal(verified.equal, true, `seed ${seed}`)
      assert.ok(keyed ? verified.tables[0]?.repaired === changes.length : true)
      const again = await run({ source, target, keyed })
      assert.deepEqual([found(again), again.equal], [[], true])
    }
  }
})

test('a plan writes nothing, and has a statement for each row', async () => {
  const [source, target] = [
    new MemoryDigester([
      ['a', '1'],
      ['b', '1'],
    ]),
    new MemoryDigester([
      ['b', '2'],
      ['c', '1'],
    ]),
  ]
  const verified = await run({ source, target, options: { repair: 'plan' } })
  assert.deepEqual(verified.repair?.statements, ['delete', 'update', 'insert'])
  assert.deepEqual([target.applied, verified.equal], [[], false])
})

test('a sample is chosen by its seed, and says how many rows it compared', async () => {
  const rows = randomRows(new Dice(9), 800)
  const side = () => new MemoryDigester(rows)
  const sample = async (seed: string) => {
    const mode: Mode = { kind: 'sample', share: 0.2, seed }
    const verified = await run({ source: side(), target: side(), options: { mode } })
    assert.equal(verified.seed, seed)
    return Number(verified.tables[0]?.sourceRows)
  }
  const counts = await Promise.all(['one', 'two', 'three', 'one'].map(sample))
  assert.equal(counts[0], counts[3])
  assert.ok(new Set(counts).size > 1, counts.join())
  for (const count of counts) assert.ok(count > 60 && count < 320, counts.join())
})

test('more differences than a report can hold are told as more; a repair takes them all', async () => {
  const rows: MemoryRow[] = Array.from({ length: 12_000 }, (_, n) => [`k${n}`, '0'])
  const none = new MemoryDigester([])
  const verified = await run({
    source: new MemoryDigester(rows),
    target: none,
    options: { namedMax: 3, chunkRows: 2000 },
  })
  const [table] = verified.tables
  assert.deepEqual([table?.more, table?.rows.length], [true, 3])
  assert.ok((table?.missing ?? 0) >= 10_000)
  assert.equal(table?.sourceRows, 12_000n)
})

test('ends that hold nothing of what is asked for are refused: no comparison is no equality', async () => {
  const nothing: SchemaSource = {
    readSchema: async () => ({
      engine: 'mem',
      flavor: 'mem',
      version: '1.0',
      objects: [],
      tables: [],
      findings: [],
    }),
  }
  const end = { facts: { engine: 'mem', flavor: 'mem', version: '1.0' }, schema: nothing }
  const side = new MemoryDigester([])
  await assert.rejects(
    run({ source: side, target: side, options: { source: end, target: end } }),
    (error) => isFault(error, 'refused'),
  )
})

test('large rows are fetched one at a time', async () => {
  const rows: MemoryRow[] = Array.from({ length: 30 }, (_, n) => [`k${n}`, 'a'])
  const other = rows.map(([key]): MemoryRow => [key ?? '', 'b'])
  for (const [rowBytes, most] of [
    [10, 30],
    [3 * 2 ** 20, 1],
    [250 * 2 ** 20, 1],
  ] as const) {
    const [source, target] = [new MemoryDigester(rows), new MemoryDigester(other)]
    target.rowBytes = rowBytes
    source.rowBytes = rowBytes
    const verified = await run({ source, target })
    assert.equal(verified.tables[0]?.different, 30)
    assert.equal(source.fetchedMost, most)
  }
})
