import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { silentLog } from '#base/log'
import { createProgress } from '#base/progress'
import { Died, Lifetime, MemoryServer } from '../../test/support/memory-server.ts'
import { Scratch } from '../../test/support/scratch.ts'
import { migrate, type MigrateOptions, type Migrated, type Preview } from './migrate.ts'

class World implements Disposable {
  readonly scratch = new Scratch('migrate')
  readonly source = new MemoryServer()
  readonly target = new MemoryServer()
  previews: Preview[] = []

  constructor() {
    for (const name of ['orders', 'lines']) {
      this.source.addTable(['shop', name], { byKey: true, identified: true })
      for (let key = 0; key < 8; key++) this.source.put(`shop.${name}`, key, `${name} ${key}`)
    }
  }

  migrate(options: Partial<MigrateOptions> = {}, life = new Lifetime()): Promise<Migrated> {
    return migrate({
      source: this.source.connect(life),
      target: this.target.connect(life),
      from: 'memory://a',
      to: 'memory://b',
      asked: {},
      stateDirectory: this.scratch.join('state'),
      resume: false,
      dryRun: false,
      parallel: 2,
      onPreview: (preview) => void this.previews.push(preview),
      onSaid: () => undefined,
      progress: createProgress('test'),
      chunkBytes: 30,
      log: silentLog,
      signal: new AbortController().signal,
      ...options,
    })
  }

  /** Nothing was written: neither on the target nor in the state directory. */
  untouched(): void {
    assert.deepEqual(this.target.done, [])
    assert.deepEqual(readdirSync(this.scratch.path), [])
  }

  [Symbol.dispose](): void {
    this.scratch[Symbol.dispose]()
  }
}

async function faultOf(
  work: Promise<unknown>,
): Promise<{ code: string; message: string; hint: string }> {
  try {
    await work
  } catch (error) {
    assert.ok(isFault(error), String(error))
    return { code: error.code, message: error.message, hint: error.hint ?? '' }
  }
  return assert.fail('it was refused')
}

test('a migration carries tables and rows, and tells what it did', async () => {
  using world = new World()
  const migrated = await world.migrate()
  assert.equal(migrated.done, true)
  assert.deepEqual(world.target.rowsOf('shop.orders'), world.source.rowsOf('shop.orders'))
  assert.deepEqual(world.target.rowsOf('shop.lines'), world.source.rowsOf('shop.lines'))
  assert.deepEqual(migrated.objects, { index: 2, table: 2, view: 2 })
  assert.deepEqual(
    migrated.tables.map(({ rows }) => rows),
    [8n, 8n],
  )
  assert.equal(migrated.positions.length, 1)
  assert.equal(world.target.done.at(-1), 'finish')
})

test('nothing is written before all findings were shown, and nothing at all when one blocks', async () => {
  using world = new World()
  world.source.findings = [
    { severity: 'blocks', code: 'no-right', said: 'the login may not read' },
    { severity: 'warns', code: 'slow', said: 'this will take long' },
  ]
  const fault = await faultOf(world.migrate())
  assert.equal(fault.code, 'refused')
  assert.equal(world.previews[0]?.findings.length, 2)
  world.untouched()
})

test('a dry run shows objects, tables and findings, and writes nothing', async () => {
  using world = new World()
  world.target.addTable(['shop', 'orders'], { byKey: true, identified: true })
  world.target.put('shop.orders', 1, 'was there')
  const migrated = await world.migrate({ dryRun: true })
  assert.equal(migrated.done, false)
  assert.deepEqual(
    migrated.findings.map(({ code }) => code),
    ['has-rows'],
  )
  assert.equal(world.previews[0]?.tables.length, 2)
  assert.equal(world.previews[0]?.objects.length, 6)
  world.untouched()
})

test('a pattern that meets nothing blocks, and so do two tables of one name', async () => {
  using world = new World()
  const typo = await faultOf(world.migrate({ asked: { include: ['shop.odrers', 'shop.orders'] } }))
  assert.equal(typo.code, 'refused')
  const map = 'shop.orders = shop.all\nshop.lines = shop.all'
  const merged = await faultOf(world.migrate({ asked: { map } }))
  assert.equal(merged.code, 'refused')
  assert.deepEqual(
    world.previews.flatMap(({ findings }) => findings.map(({ code }) => code)),
    ['nothing-included', 'same-target'],
  )
  world.untouched()
})

test('what is chosen is carried under the names that were given', async () => {
  using world = new World()
  await world.migrate({ asked: { exclude: ['*.lines'], map: 'shop.orders = store.sales' } })
  assert.deepEqual([...world.target.tables.keys()], ['store.sales'])
  assert.deepEqual(world.target.rowsOf('store.sales'), world.source.rowsOf('shop.orders'))
})

test('each phase goes alone, and copy finds the tables that are there', async () => {
  using world = new World()
  const made = await world.migrate({ asked: { phases: ['schema'] } })
  assert.deepEqual(world.target.rowsOf('shop.orders'), [])
  assert.deepEqual(made.objects, { index: 2, table: 2, view: 2 })
  const copied = await world.migrate({
    asked: { phases: ['copy'] },
    stateDirectory: world.scratch.join('second'),
  })
  assert.deepEqual(world.target.rowsOf('shop.orders'), world.source.rowsOf('shop.orders'))
  assert.deepEqual(copied.objects, {})
  using empty = new World()
  const lacks = await faultOf(empty.migrate({ asked: { phases: ['copy'] } }))
  assert.equal(lacks.code, 'refused')
  empty.untouched()
})

test('a state directory goes on with --resume only, and only when there is one', async () => {
  using world = new World()
  const nothing = await faultOf(world.migrate({ resume: true }))
  assert.equal(nothing.code, 'missing')
  world.untouched()
  await assert.rejects(world.migrate({}, new Lifetime(12)), Died)
  const again = await faultOf(world.migrate())
  assert.equal(again.code, 'exists')
  assert.match(again.hint, /--resume.*--state/s)
  const resumed = await world.migrate({ resume: true })
  assert.equal(resumed.done, true)
  const done = await faultOf(world.migrate())
  assert.equal(done.code, 'exists')
  assert.match(done.message, /was done before/)
  // A resume of what is done tells it again.
  const told = await world.migrate({ resume: true })
  assert.deepEqual(told.tables, resumed.tables)
})

test('a state belongs to one pair of ends and one set of choices', async () => {
  using world = new World()
  const asked = { include: ['shop.orders'] }
  await assert.rejects(world.migrate({ asked }, new Lifetime(8)), Died)
  const resume = true
  const ends = await faultOf(world.migrate({ resume, to: 'memory://c' }))
  assert.equal(ends.code, 'usage')
  assert.match(ends.message, /memory:\/\/a to memory:\/\/b/)
  const choice = await faultOf(world.migrate({ resume, asked: { include: ['shop.*'] } }))
  assert.match(choice.message, /another --include/)
  const phase = await faultOf(world.migrate({ resume, asked: { phases: ['copy'] } }))
  assert.match(phase.message, /another --phases/)
  // What is left out is as it was.
  await world.migrate({ resume })
  assert.deepEqual([...world.target.tables.keys()], ['shop.orders'])
})

test('an interrupted migration keeps its state', async () => {
  using world = new World()
  const abort = new AbortController()
  const stopping = world.migrate({
    signal: abort.signal,
    onSaid: (said) => {
      if (said === 'copies rows') abort.abort(new Error('stop'))
    },
  })
  await assert.rejects(stopping, /stop/)
  const resumed = await world.migrate({ resume: true })
  assert.equal(resumed.done, true)
  assert.deepEqual(resumed.findings, [])
})

test('tables of another shape than planned stop the link before a row is read', async () => {
  using world = new World()
  await assert.rejects(world.migrate({}, new Lifetime(9)), Died)
  world.source.addTable(['shop', 'late'], { byKey: true, identified: true })
  const fault = await faultOf(world.migrate({ resume: true }))
  assert.equal(fault.code, 'source-changed')
  assert.match(fault.message, /shop\.late was made/)
})
