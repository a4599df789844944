import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLog } from '#base/log'
import { createProgress } from '#base/progress'
import { Died, Lifetime, MemoryServer } from '../../test/support/memory-server.ts'
import { Scratch } from '../../test/support/scratch.ts'
import { migrate, type Migrated } from './migrate.ts'

const names = ['shop.orders', 'shop.lines', 'shop.notes', 'shop.empty'] as const

/** Orders in chunks by key, lines in chunks by place, notes without any key. */
function shop(): MemoryServer {
  const server = new MemoryServer()
  server.addTable(['shop', 'orders'], { byKey: true, identified: true })
  server.addTable(['shop', 'lines'], { byKey: false, identified: true })
  server.addTable(['shop', 'notes'], { byKey: true, identified: false })
  server.addTable(['shop', 'empty'], { byKey: true, identified: true })
  for (let key = 0; key < 10; key++) server.put('shop.orders', key, `order ${key}`)
  for (let key = 0; key < 7; key++) server.put('shop.lines', key, `line ${key}`)
  for (let key = 0; key < 5; key++) server.put('shop.notes', 1, `note ${key % 2}`)
  return server
}

type World = {
  readonly source: MemoryServer
  readonly target: MemoryServer
  readonly state: string
}

function run(world: World, life: Lifetime, resume: boolean): Promise<Migrated> {
  return migrate({
    source: world.source.connect(life),
    target: world.target.connect(life),
    from: 'memory://a',
    to: 'memory://b',
    asked: {},
    stateDirectory: world.state,
    resume,
    dryRun: false,
    parallel: 2,
    onPreview: () => undefined,
    onSaid: () => undefined,
    progress: createProgress('test'),
    chunkBytes: 30,
    log: silentLog,
    signal: new AbortController().signal,
  })
}

/** Lets a migration die at a call, changes the source, and resumes it. Undefined when it was done before that call. */
async function dieAt(
  call: number,
  after: boolean,
  meanwhile: (world: World) => void,
): Promise<{ readonly world: World; readonly migrated: Migrated } | undefined> {
  using scratch = new Scratch('crash')
  const world = { source: shop(), target: new MemoryServer(), state: scratch.path }
  try {
    await run(world, new Lifetime(call, after), false)
    return undefined
  } catch (error) {
    assert.ok(error instanceof Died, String(error))
  }
  meanwhile(world)
  // Died before a plan was recorded: nothing was written, and it begins.
  const begun = await hasBegun(world)
  const migrated = await run(world, new Lifetime(), begun)
  return { world, migrated }
}

async function hasBegun(world: World): Promise<boolean> {
  const { hasState } = await import('./state.ts')
  return hasState(world.state)
}

function comesAfter(done: readonly string[], later: RegExp, earlier: RegExp): void {
  const last = done.findLastIndex((line) => earlier.test(line))
  const first = done.findIndex((line) => later.test(line))
  assert.ok(first > last, `${later} after ${earlier} in\n${done.join('\n')}`)
}

test('a chunk is loaded once, and objects come behind their rows, wherever the mover dies', async () => {
  let died = 0
  for (const after of [false, true]) {
    for (let call = 1; ; call++) {
      const survived = await dieAt(call, after, () => undefined)
      if (!survived) break
      died += 1
      const { world, migrated } = survived
      const where = `call ${call}${after ? ', after' : ''}`
      for (const name of names) {
        assert.deepEqual(world.target.rowsOf(name), world.source.rowsOf(name), `${name}, ${where}`)
        comesAfter(
          world.target.done,
          new RegExp(`^make index ${name}`),
          new RegExp(`^load ${name}`),
        )
      }
      comesAfter(world.target.done, /^make view/, /^(load|make index|make table)/)
      const loads = world.target.done.filter((line) => line.startsWith('load'))
      assert.equal(new Set(loads).size, loads.length, `${where}: ${loads.join('\n')}`)
      assert.equal(
        world.target.done.some((line) => line.startsWith('clear')),
        false,
        where,
      )
      assert.equal(world.target.marks.size, 0, where)
      // The source stood still: nothing is said to be mixed.
      assert.deepEqual(migrated.findings, [], where)
      const rows = migrated.tables.map((table) => table.rows)
      assert.deepEqual(rows, [10n, 7n, 5n, 0n], where)
    }
  }
  assert.ok(died > 80, `died ${died} times`)
})

test('what was written while the mover was dead is on the target, or the findings say so', async () => {
  let mixed = 0
  let anew = 0
  for (let call = 1; ; call++) {
    const survived = await dieAt(call, true, ({ source }) => {
      source.put('shop.lines', 0, 'line 0 again')
      source.put('shop.orders', 3, 'order 3 again')
      source.put('shop.notes', 1, 'one more')
    })
    if (!survived) break
    const { world, migrated } = survived
    const said = migrated.findings.map(({ code }) => code)
    anew += world.target.done.filter((line) => line.startsWith('clear')).length
    const then = shop()
    for (const name of ['shop.lines', 'shop.notes'] as const) {
      // In chunks of places, or without a key: whole and of one moment, even if that is the earlier one.
      const rows = world.target.rowsOf(name)
      const whole = same(rows, world.source.rowsOf(name)) || same(rows, then.rowsOf(name))
      assert.ok(whole, `${name}, call ${call}: ${rows.join()}`)
    }
    assert.equal(world.target.rowsOf('shop.orders').length, 10, `call ${call}`)
    const ofOneMoment = [world.source, then].some((server) =>
      names.every((name) => same(world.target.rowsOf(name), server.rowsOf(name))),
    )
    assert.ok(ofOneMoment || said.includes('several-positions'), `call ${call}: ${said.join()}`)
    if (said.includes('mixed-positions')) mixed += 1
  }
  assert.ok(mixed > 0, 'a copy by key went on')
  assert.ok(anew > 0, 'a copy by place began anew')
})

function same(one: readonly string[], other: readonly string[]): boolean {
  return JSON.stringify(one) === JSON.stringify(other)
}
