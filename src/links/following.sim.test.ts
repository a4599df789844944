import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLog } from '#base/log'
import { createProgress } from '#base/progress'
import { Sleepless } from '../../test/support/link-world.ts'
import { Died, Lifetime, MemoryServer } from '../../test/support/memory-server.ts'
import { Scratch } from '../../test/support/scratch.ts'
import { migrate, type Migrated, type MigrateOptions } from './migrate.ts'
import { hasState, openState } from './state.ts'

/** While the copy comes, before and within the changes: not when these have ended. */
const busy = /^(copies rows|makes foreign keys, views and|applies changes)/
const names = ['shop.orders', 'shop.lines', 'shop.notes'] as const

class World implements Disposable {
  readonly scratch = new Scratch('following')
  readonly source = new MemoryServer()
  readonly target = new MemoryServer()
  readonly time = new Sleepless()
  #count = 0

  constructor() {
    this.source.programs = true
    this.source.addTable(['shop', 'orders'], { byKey: true, identified: true })
    this.source.addTable(['shop', 'lines'], { byKey: false, identified: true })
    this.source.addTable(['shop', 'notes'], { byKey: true, identified: false })
    for (let key = 0; key < 5; key++) this.source.put('shop.orders', key, `order ${key}`)
    for (let key = 0; key < 4; key++) this.source.put('shop.lines', key, `line ${key}`)
    this.source.put('shop.notes', 1, 'note')
  }

  /** Transactions that come, change and take away; one of them in pieces. */
  write(): void {
    this.#count += 1
    const n = this.#count
    this.source.write([
      { table: 'shop.orders', key: n % 5, value: `order of ${n}` },
      { table: 'shop.orders', key: 100 + n, value: 'new' },
      { table: 'shop.notes', key: 1, value: `note ${n}` },
    ])
    this.source.put('shop.lines', 50, `line ${n}`)
    this.source.write([{ table: 'shop.lines', key: 50 }])
    const rows = Array.from({ length: 12 }, (_, key) => ({
      table: 'shop.lines',
      key: 200 + key,
      value: `of ${n}`,
    }))
    this.source.write(rows)
  }

  migrate(life: Lifetime, options: Partial<MigrateOptions> = {}): Promise<Migrated> {
    return migrate({
      source: this.source.connect(life),
      target: this.target.connect(life),
      from: 'memory://a',
      to: 'memory://b',
      asked: { until: 'caught-up' },
      stateDirectory: this.scratch.path,
      resume: hasState(this.scratch.path),
      dryRun: false,
      parallel: 2,
      onPreview: () => undefined,
      onSaid: (said) => {
        if (busy.test(said)) this.write()
      },
      progress: createProgress('test'),
      chunkBytes: 30,
      batchRowsMax: 5,
      time: this.time,
      log: silentLog,
      signal: new AbortController().signal,
      ...options,
    })
  }

  /** Its changes came to their end. */
  async ended(): Promise<boolean> {
    if (!hasState(this.scratch.path)) return false
    using store = await openState(this.scratch.path)
    return store.at === 'ending' || store.at === 'done'
  }

  same(where: string): void {
    assert.equal(this.target.applied.size, 0, `${where}: nothing is kept of the link`)
    for (const name of names) {
      assert.deepEqual(this.target.rowsOf(name), this.source.rowsOf(name), `${name}, ${where}`)
    }
  }

  [Symbol.dispose](): void {
    this.scratch[Symbol.dispose]()
  }
}

test('copy and changes bring everything, and what acts by itself is made at the end', async () => {
  using world = new World()
  const said: string[] = []
  const migrated = await world.migrate(new Lifetime(), {
    onSaid: (now) => {
      said.push(now)
      // What is made on the source meanwhile comes with the changes, where their log tells of it, and not twice.
      if (now === 'applies changes') {
        world.source.addTable(['shop', 'late'], { byKey: true, identified: true })
      }
      if (busy.test(now)) world.write()
    },
  })
  world.same('at once')
  assert.equal(migrated.done, true)
  assert.deepEqual(migrated.phases, ['schema', 'copy', 'changes'])
  assert.deepEqual(migrated.findings, [])
  assert.ok((migrated.changes?.rows ?? 0) > 0)
  const { done } = world.target
  const last = done.findLastIndex((line) => line.startsWith('apply'))
  for (const held of ['make sequence', 'make trigger', 'make late', 'end apply']) {
    assert.ok(done.indexOf(held) > last, `${held} in\n${done.join('\n')}`)
  }
  assert.ok(done.indexOf('make view all') < done.findIndex((line) => line.startsWith('apply')))
  assert.equal(done.includes('make index shop.late'), false)
  // Its value is that of the end, not that of the copy.
  assert.deepEqual(world.target.objects.get('sequence')?.statements, [`${world.source.log.length}`])
})

test('each transaction is applied once wherever the mover dies, of whichever positions the copy is', async () => {
  let died = 0
  let several = 0
  for (const after of [false, true]) {
    // Each of them takes a while: one of six.
    for (let call = after ? 4 : 1; ; call += 6) {
      using world = new World()
      const writes = (now: string) => {
        if (busy.test(now)) world.write()
      }
      const options = { onSaid: writes }
      let survived = true
      await world.migrate(new Lifetime(call, after), options).catch((error: unknown) => {
        assert.ok(error instanceof Died, String(error))
        survived = false
      })
      if (survived) break
      died += 1
      const where = `call ${call}${after ? ', after' : ''}`
      // What is written while the target's sequences are made is not carried: nobody writes then.
      const ended = await world.ended()
      if (!ended) world.write()
      const quiet = ended ? { onSaid: () => undefined } : options
      const migrated = await world.migrate(new Lifetime(), quiet)
      assert.deepEqual(migrated.findings, [], where)
      if (migrated.positions.length > 1) several += 1
      world.same(where)
    }
  }
  assert.ok(died > 30, `died ${died} times`)
  assert.ok(several > 3, `${several} copies of several positions`)
})

test('until never it runs on; stopped, it goes on with --resume and another end', async () => {
  using world = new World()
  const abort = new AbortController()
  let idle = 0
  world.source.onIdle = () => {
    idle += 1
    if (idle < 5) world.write()
    if (idle === 9) abort.abort(new Error('stop'))
  }
  const asked = { until: 'never' }
  const running = world.migrate(new Lifetime(), { asked, signal: abort.signal })
  await assert.rejects(running, /stop/)
  assert.equal(world.target.objects.has('trigger'), false)
  for (const name of names) assert.deepEqual(world.target.rowsOf(name), world.source.rowsOf(name))
  const { done } = await world.migrate(new Lifetime(), {
    asked: { until: 'caught-up' },
    onSaid: () => undefined,
  })
  assert.equal(done, true)
  world.same('in the end')
  assert.equal(world.target.objects.has('trigger'), true)
})

test('an end of changes is nothing for a link without them', async () => {
  using world = new World()
  const without = { phases: ['schema', 'copy'] } as const
  await assert.rejects(world.migrate(new Lifetime(20), { asked: without }), Died)
  const resumed = world.migrate(new Lifetime(), { asked: { until: 'never' } })
  await assert.rejects(resumed, { code: 'usage', message: /a link without changes/ })
})
