import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault } from '#base/faults'
import { silentLog } from '#base/log'
import { createProgress } from '#base/progress'
import { Dice } from '../../test/support/dice.ts'
import { Sleepless } from '../../test/support/link-world.ts'
import { Died, Lifetime, MemoryServer } from '../../test/support/memory-server.ts'
import { carryChanges, type ChangesWork } from './changes.ts'
import { FlowMeter } from './flow.ts'
import { Since } from './since.ts'

const tables = ['shop.orders', 'shop.lines', 'shop.notes', 'shop.proof'] as const
const keys = 6
const largeRows = 20

/** A source with rows, a target that holds them, and random transactions behind that over few keys. */
class Trial {
  readonly source = new MemoryServer()
  readonly target = new MemoryServer()
  readonly time = new Sleepless()
  readonly dice: Dice
  readonly since: Since
  readonly meter = new FlowMeter(createProgress('test'), this.time)
  #written = 0

  constructor(seed: number) {
    this.dice = new Dice(seed)
    for (const server of [this.source, this.target]) {
      for (const name of tables) {
        const identified = name !== 'shop.notes'
        server.addTable(name.split('.'), { byKey: true, identified })
        if (!identified) continue
        for (let key = 0; key < keys; key += 2) server.put(name, key, `row ${key}`)
      }
    }
    this.since = new Since([], { history: 'memory', at: this.source.end })
  }

  /** Each transaction has a row of its own in `proof`: who applies it twice meets it. */
  load(transactions: number): void {
    for (let index = 0; index < transactions; index++) {
      this.#written += 1
      const large = this.dice.roll(12) === 0
      const rows = large ? largeRows : 1 + this.dice.roll(4)
      const writes = Array.from({ length: rows }, () => {
        const table = this.dice.pick(tables.slice(0, 3))
        const key = this.dice.roll(keys)
        const gone = table !== 'shop.notes' && this.dice.roll(4) === 0
        const there = this.source.table(table).rows.some((row) => row.key === key)
        if (gone && there) return { table, key }
        return { table, key, value: `${this.#written}.${this.dice.roll(1000)}` }
      })
      const seen = new Set<string>()
      const once = writes.filter(({ table, key }) => {
        const name = `${table} ${key}`
        return !seen.has(name) && Boolean(seen.add(name))
      })
      const proof = { table: 'shop.proof', key: 1000 + this.#written, value: 'once' }
      this.source.write([...once, proof])
    }
  }

  async run(life: Lifetime, more: Partial<ChangesWork> = {}): Promise<void> {
    const source = this.source.connect(life).changes
    const target = this.target.connect(life).apply
    assert.ok(source && target)
    await carryChanges({
      source,
      target,
      link: 'trial',
      selection: { accepts: () => true, map: (name) => name },
      since: this.since,
      until: { kind: 'caught-up' },
      conflicts: 'stop',
      parallel: 3,
      directory: '/nowhere',
      throttle: undefined,
      meter: this.meter,
      onConflict: () => assert.fail('no conflict is real'),
      onHiddenCascade: () => assert.fail('nothing cascades'),
      time: this.time,
      log: silentLog,
      signal: new AbortController().signal,
      batchRowsMax: largeRows / 3,
      ...more,
    })
  }

  same(where: string): void {
    for (const name of tables) {
      assert.deepEqual(this.target.rowsOf(name), this.source.rowsOf(name), `${name}, ${where}`)
    }
    assert.equal(this.target.locks.size, 0, where)
  }
}

test('lanes that commit in any order leave what one after the other would, and commits are shared', async () => {
  let commits = 0
  let transactions = 0
  for (let seed = 1; seed <= 60; seed++) {
    const trial = new Trial(seed)
    trial.load(60)
    const life = new Lifetime()
    life.seed = seed
    await trial.run(life, { parallel: 1 + (seed % 5) })
    trial.same(`seed ${seed}`)
    commits += trial.target.commits
    transactions += trial.meter.flow.transactions
    assert.equal(trial.meter.flow.transactions, 60, `seed ${seed}`)
  }
  assert.ok(commits < transactions, `${commits} commits of ${transactions}`)
})

test('a mover that dies at any call, before or behind its effect, applies each transaction once', async () => {
  let died = 0
  for (let seed = 1; seed <= 80; seed++) {
    const trial = new Trial(seed)
    trial.load(30)
    for (let starts = 1; ; starts++) {
      assert.ok(starts < 100, 'it comes to an end')
      const life = new Lifetime(4 + trial.dice.roll(60), trial.dice.roll(2) === 0)
      life.seed = seed * starts
      try {
        await trial.run(life, { parallel: 1 + trial.dice.roll(4) })
        break
      } catch (error) {
        assert.ok(error instanceof Died, String(error))
        died += 1
        if (starts < 5) trial.load(5)
      }
    }
    trial.same(`seed ${seed}`)
  }
  assert.ok(died > 150, `died ${died} times`)
})

test('deadlocks, rows that come later, and lost connections are gone through', async () => {
  const faults = [
    () => new Fault('locked', 'deadlock'),
    () => new Fault('conflict', 'not there yet'),
    () => new Fault('unreachable', 'gone'),
  ]
  for (let seed = 1; seed <= 80; seed++) {
    const trial = new Trial(seed)
    trial.load(40)
    const life = new Lifetime()
    life.seed = seed
    for (let count = 0; count < 4; count++) {
      const fault = trial.dice.pick(faults)()
      const call = 4 + trial.dice.roll(80)
      // A conflict is nothing that comes behind an effect, and of one that is alone nothing that goes away.
      if (fault.code === 'unreachable' && trial.dice.roll(2)) life.lateFailures.set(call, fault)
      else if (fault.code !== 'conflict') life.failures.set(call, fault)
    }
    life.spurious = trial.dice.roll(30)
    await trial.run(life)
    trial.same(`seed ${seed}`)
  }
})

test('an end that is a time leaves what was stamped later, also when it lies within a large transaction', async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const trial = new Trial(seed)
    trial.load(15)
    const [from] = trial.source.log.map(({ at }) => at).slice(10 + (seed % 5))
    const timeUs = BigInt(from ?? 0) * 1_000_000n
    await trial.run(new Lifetime(), { until: { kind: 'time', timeUs } })
    const proof = trial.target.rowsOf('shop.proof').filter((row) => row.endsWith('once'))
    const wanted = trial.source.log.filter(({ at }) => BigInt(at) * 1_000_000n <= timeUs)
    const mine = wanted.filter(({ changes }) =>
      changes.some(({ after }) => after?.value === 'once'),
    )
    assert.equal(proof.length, mine.length, `seed ${seed}`)
    // Later on it goes on from there.
    await trial.run(new Lifetime())
    trial.same(`seed ${seed}`)
  }
})

test('a real conflict stops the link, or is settled and told', async () => {
  for (const conflicts of ['stop', 'overwrite', 'ignore'] as const) {
    const trial = new Trial(3)
    trial.target.put('shop.orders', 1, 'not of the source')
    trial.source.write([{ table: 'shop.orders', key: 1, value: 'new' }])
    let told = 0
    const run = trial.run(new Lifetime(), { conflicts, onConflict: () => void (told += 1) })
    if (conflicts === 'stop') await assert.rejects(run, { code: 'conflict' })
    else await run
    const row = trial.target.rowsOf('shop.orders').find((one) => one.startsWith('1 '))
    assert.equal(row, conflicts === 'overwrite' ? '1 new' : '1 not of the source')
    assert.equal(told, conflicts === 'stop' ? 0 : 1)
  }
})

test('on a source that stands still the mark moves, and what is acknowledged stands in it', async () => {
  const trial = new Trial(5)
  const abort = new AbortController()
  let idle = 0
  trial.source.onIdle = () => {
    idle += 1
    trial.time.sleptMs += 1000
    trial.source.addTable(['other', `t${idle}`], { byKey: true, identified: true })
    if (idle === 30) abort.abort(new Error('stop'))
  }
  const options = { until: { kind: 'never' }, signal: abort.signal } as const
  await assert.rejects(trial.run(new Lifetime(), options), /stop/)
  const [mark] = trial.target.applied.values()
  assert.ok(trial.target.commits >= 4 && trial.target.commits <= 7, `${trial.target.commits}`)
  assert.ok(mark && trial.source.acked <= mark.low.at && trial.source.acked !== '')
})

test('changes of several positions of a copy are dropped, converge, or are written', async () => {
  for (let seed = 1; seed <= 60; seed++) {
    const trial = new Trial(seed)
    const start = trial.source.end
    trial.load(12)
    const middle = trial.source.end
    const copy = (name: (typeof tables)[number], which: (key: number) => boolean) => {
      const into = trial.target.table(name)
      into.rows = into.rows.filter(({ key }) => !which(key))
      into.rows.push(...trial.source.table(name).rows.filter(({ key }) => which(key)))
    }
    // One table whole at the later position, one half, and the others at the first.
    copy('shop.lines', () => true)
    copy('shop.orders', (key) => key < keys / 2)
    trial.load(12)
    const at = (position: string) => ({ history: 'memory', at: position })
    const [first, last] = [at(start), at(middle)]
    const since = new Since(
      [
        { name: ['shop', 'orders'], first, last },
        { name: ['shop', 'lines'], first: last, last },
        { name: ['shop', 'notes'], first, last: first },
        { name: ['shop', 'proof'], first, last: first },
      ],
      first,
    )
    await trial.run(new Lifetime(), { since })
    trial.same(`seed ${seed}`)
  }
})
