import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { Fault } from '#base/faults'
import type { Time } from '#base/time'
import { MemStorage } from '../../storage/mem/mem.ts'
import { withFaults } from '../../storage/wrap/fault.ts'
import { type Lockable, lockRepository } from './lock.ts'
import { initRepository } from './open.ts'
import type { Repository } from './repository.ts'

const cheap = { n: 2, r: 1, p: 1 }
const signal = new AbortController().signal
const minuteMs = 60_000

/** Time that goes when told. The wall clock can be stepped alone. */
class ManualTime implements Time {
  #monotonicMs = 0
  #wallMs = Date.UTC(2026, 0, 1)
  #sleepers: { readonly atMs: number; readonly wake: () => void }[] = []

  now(): number {
    return this.#wallMs
  }

  monotonicMs(): number {
    return this.#monotonicMs
  }

  sleep(ms: number, until?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      until?.throwIfAborted()
      until?.addEventListener('abort', () => reject(until.reason), { once: true })
      this.#sleepers.push({ atMs: this.#monotonicMs + ms, wake: resolve })
    })
  }

  stepWall(ms: number): void {
    this.#wallMs += ms
  }

  async pass(ms: number): Promise<void> {
    for (const end = this.#monotonicMs + ms; this.#monotonicMs < end; ) {
      const stepMs = Math.min(1000, end - this.#monotonicMs)
      this.#monotonicMs += stepMs
      this.#wallMs += stepMs
      const due = this.#sleepers.filter(({ atMs }) => atMs <= this.#monotonicMs)
      this.#sleepers = this.#sleepers.filter(({ atMs }) => atMs > this.#monotonicMs)
      for (const { wake } of due) wake()
      for (let turns = 0; turns < 5; turns++) await turn()
    }
  }
}

type World = {
  readonly time: ManualTime
  readonly storage: MemStorage
  readonly repository: Repository
}

async function makeWorld(): Promise<World> {
  const time = new ManualTime()
  const storage = new MemStorage({ now: () => time.now() })
  const repository = await initRepository(storage, 'p', { signal, passwordCost: cheap })
  return { time, storage, repository }
}

/** Takes a lock while time goes on. */
async function take(
  { time, repository }: { readonly time: ManualTime; readonly repository: Lockable },
  kind: 'shared' | 'exclusive',
) {
  const taking = lockRepository(repository, kind, { signal, time })
  let pending = true
  const settle = () => {
    pending = false
  }
  taking.then(settle, settle)
  while (pending) await time.pass(100)
  return taking
}

async function countLocks({ repository }: World): Promise<number> {
  return (await repository.listFiles('locks', { signal })).length
}

test('shared locks stand beside each other, an exclusive one stands alone', async () => {
  const world = await makeWorld()
  const first = await take(world, 'shared')
  const second = await take(world, 'shared')
  await assert.rejects(take(world, 'exclusive'), { code: 'locked' })
  await first[Symbol.asyncDispose]()
  await assert.rejects(take(world, 'exclusive'), { code: 'locked' })
  await second[Symbol.asyncDispose]()
  await using _third = await take(world, 'exclusive')
  await assert.rejects(take(world, 'shared'), { code: 'locked' })
  assert.equal(await countLocks(world), 1)
})

test('a lock that excludes the work is waited for, told once, and refused when the wait is over', async () => {
  const world = await makeWorld()
  const { time, repository } = world
  const held = await take(world, 'exclusive')
  const told: string[] = []
  const waiting = (ms: number) => {
    const wait = { ms, onWait: ({ message }: Fault) => told.push(message) }
    return lockRepository(repository, 'shared', { signal, time, wait })
  }
  const patient = waiting(minuteMs)
  const hasty = assert.rejects(waiting(5000), { code: 'locked' })
  await time.pass(20_000)
  await hasty
  assert.equal(told.length, 2)
  assert.match(told[0] ?? '', /exclusive, process/)
  await held[Symbol.asyncDispose]()
  await time.pass(20_000)
  await using _lock = await patient
  assert.equal(await countLocks(world), 1)
})

test('of two that lock exclusively at once at most one succeeds, and nothing stays behind', async () => {
  const world = await makeWorld()
  const both = Promise.allSettled(
    [0, 1].map(() => lockRepository(world.repository, 'exclusive', { signal, time: world.time })),
  )
  for (let turns = 0; turns < 20; turns++) await world.time.pass(100)
  const held = (await both).flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
  assert.ok(held.length <= 1)
  for (const lock of held) await lock[Symbol.asyncDispose]()
  assert.equal(await countLocks(world), 0)
})

test('a lock is refreshed every five minutes: a new file, then the old one goes', async () => {
  const world = await makeWorld()
  await using lock = await take(world, 'shared')
  const [before] = await world.repository.listFiles('locks', { signal })
  await world.time.pass(61 * minuteMs)
  const after = await world.repository.listFiles('locks', { signal })
  assert.equal(after.length, 1)
  assert.notEqual(after[0]?.id, before?.id)
  assert.ok(world.time.now() - (after[0]?.modifiedMs ?? 0) <= 6 * minuteMs)
  assert.equal(lock.signal.aborted, false)
})

test('a lock that cannot be refreshed for 22.5 minutes is lost', async () => {
  const world = await makeWorld()
  const faulty = withFaults(world.storage, { rate: 1 })
  let cut = false
  const cutOff: Lockable = {
    get storage() {
      return cut ? faulty : world.storage
    },
    listFiles: (...args) => world.repository.listFiles(...args),
    loadJson: (...args) => world.repository.loadJson(...args),
    saveJson: (...args) => world.repository.saveJson(...args),
  }
  const lock = await take({ ...world, repository: cutOff }, 'shared')
  cut = true
  await world.time.pass(22 * minuteMs)
  assert.equal(lock.signal.aborted, false)
  await world.time.pass(1 * minuteMs)
  assert.equal(lock.signal.aborted, true)
  assert.equal(lock.signal.reason.code, 'locked')
  cut = false
  await lock[Symbol.asyncDispose]()
})

test('a lock that somebody removed is lost at the next refresh', async () => {
  const world = await makeWorld()
  const lock = await take(world, 'exclusive')
  const [file] = await world.repository.listFiles('locks', { signal })
  await world.storage.delete(`locks/${file?.id}`)
  await world.time.pass(6 * minuteMs)
  assert.equal(lock.signal.aborted, true)
  await lock[Symbol.asyncDispose]()
  assert.equal(await countLocks(world), 0)
})

test('a clock that steps loses no lock; a sleep of an hour does, by the times of the store', async () => {
  const time = new ManualTime()
  let storeMs = 0
  const storage = new MemStorage({ now: () => storeMs })
  const repository = await initRepository(storage, 'p', { signal, passwordCost: cheap })
  const world = { time, storage, repository }
  await using lock = await take(world, 'shared')
  time.stepWall(60 * minuteMs)
  await time.pass(2000)
  assert.equal(lock.signal.aborted, false)
  time.stepWall(60 * minuteMs)
  storeMs += 60 * minuteMs
  await time.pass(2000)
  assert.equal(lock.signal.aborted, true)
})

async function plantLock(world: World, holder: object): Promise<void> {
  await world.repository.saveJson('locks', JSON.stringify(holder), { signal })
}

const foreign = {
  time: '2026-01-01T00:00:00Z',
  exclusive: true,
  hostname: 'elsewhere',
  username: 'u',
  pid: 1,
}

test("another machine's lock counts for 30 minutes by the store's clock, then it is removed", async () => {
  const world = await makeWorld()
  await plantLock(world, foreign)
  await assert.rejects(take(world, 'shared'), /process 1 of u on elsewhere/)
  await world.time.pass(29 * minuteMs)
  await assert.rejects(take(world, 'shared'), { code: 'locked' })
  await world.time.pass(2 * minuteMs)
  await using _lock = await take(world, 'shared')
  assert.equal(await countLocks(world), 1)
})

test('a lock whose age only our own clock believes in still counts', async () => {
  const world = await makeWorld()
  await plantLock(world, foreign)
  const late = new ManualTime()
  late.stepWall(90 * minuteMs)
  await assert.rejects(take({ ...world, time: late }, 'shared'), { code: 'locked' })
  assert.equal(await countLocks(world), 1)
})

test('the lock of a dead process of this machine is removed at once, that of a living one is not', async () => {
  const world = await makeWorld()
  const own = await take(world, 'exclusive')
  const [file] = await world.repository.listFiles('locks', { signal })
  assert.ok(file)
  const holder = await world.repository.loadJson('locks', file, { signal })
  await own[Symbol.asyncDispose]()
  const { process: name } = holder as { process: string }
  await plantLock(world, { ...(holder as object), process: name.replace(/\d+$/, '1') })
  await using _lock = await take(world, 'exclusive')
  assert.equal(await countLocks(world), 1)
})

test('a lock that cannot be read may be an exclusive one; an empty file is none', async () => {
  const world = await makeWorld()
  await world.storage.put(`locks/${'0'.repeat(64)}`, Buffer.alloc(0))
  const lock = await take(world, 'exclusive')
  await lock[Symbol.asyncDispose]()
  await world.storage.put(`locks/${'1'.repeat(64)}`, Buffer.from('damaged'))
  await assert.rejects(take(world, 'shared'), /unreadable/)
})

test('work that only reads goes on where the store refuses to be written to; writers do not', async () => {
  const world = await makeWorld()
  const denied = async () => {
    throw new Fault('denied', 'put: not allowed')
  }
  const readOnly: Lockable = {
    storage: world.storage,
    listFiles: (...args) => world.repository.listFiles(...args),
    loadJson: (...args) => world.repository.loadJson(...args),
    saveJson: denied,
  }
  const { time } = world
  await assert.rejects(lockRepository(readOnly, 'shared', { signal, time }), { code: 'denied' })
  await using lock = await lockRepository(readOnly, 'shared', { signal, time, readOnly: true })
  assert.equal(lock.signal.aborted, false)
  await assert.rejects(lockRepository(readOnly, 'exclusive', { signal, time, readOnly: true }), {
    code: 'denied',
  })
  await plantLock(world, foreign)
  await assert.rejects(lockRepository(readOnly, 'shared', { signal, time, readOnly: true }), {
    code: 'locked',
  })
})
