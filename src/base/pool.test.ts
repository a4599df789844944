import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { isFault } from './faults.ts'
import { Pool } from './pool.ts'

type Session = { readonly id: number; alive: boolean; closed: boolean }

const { signal } = new AbortController()

function createPool({ size = 2, canOpen = true, held = [] as readonly Session[] } = {}) {
  const opened: Session[] = [...held]
  const open = async () => {
    const session = { id: opened.length, alive: true, closed: false }
    opened.push(session)
    return session
  }
  const pool = new Pool<Session>({
    size,
    held,
    open: canOpen ? open : undefined,
    isAlive: (session) => session.alive,
    close: (session) => {
      session.closed = true
    },
  })
  return { pool, opened }
}

const session = (id: number): Session => ({ id, alive: true, closed: false })

/** Lets all run that does not wait for anything. */
const settle = () => new Promise((resolve) => setImmediate(resolve))

describe('pool', () => {
  test('opens as many as are wanted at once, no more than its size, and uses them again', async () => {
    const { pool, opened } = createPool()
    const [first, second] = [await pool.borrow(signal), await pool.borrow(signal)]
    const third = pool.borrow(signal)
    await settle()
    assert.equal(opened.length, 2)
    pool.giveBack(first)
    assert.equal(await third, first)
    pool.giveBack(second)
    assert.equal(await pool.borrow(signal), second)
  })

  test('who waits is served in turn', async () => {
    const { pool } = createPool({ size: 1 })
    const first = await pool.borrow(signal)
    const served: string[] = []
    const users = ['a', 'b', 'c'].map((name) =>
      pool.with(signal, async () => void served.push(name)),
    )
    await settle()
    pool.giveBack(first)
    await Promise.all(users)
    assert.deepEqual(served, ['a', 'b', 'c'])
  })

  test('one that is lost or in the middle of something is ended, and another opened', async () => {
    const { pool, opened } = createPool({ size: 1 })
    await assert.rejects(
      pool.with(signal, async () => Promise.reject(new Error('in the middle'))),
      /in the middle/,
    )
    const second = await pool.borrow(signal)
    second.alive = false
    pool.giveBack(second)
    await pool.borrow(signal)
    assert.deepEqual(
      opened.map(({ closed }) => closed),
      [true, true, false],
    )
  })

  test('one that died while nobody used it is not lent', async () => {
    const { pool, opened } = createPool({ size: 1, held: [session(0)] })
    const [first] = opened
    if (first) first.alive = false
    assert.equal((await pool.borrow(signal)).id, 1)
    assert.equal(first?.closed, true)
  })

  test('an opening that fails lets the next one try', async () => {
    let tries = 0
    const pool = new Pool<Session>({
      size: 1,
      open: async () => {
        tries += 1
        await settle()
        if (tries === 1) throw new Error('too many connections')
        return session(tries)
      },
      isAlive: () => true,
      close: () => undefined,
    })
    const first = pool.borrow(signal)
    const second = pool.borrow(signal)
    await assert.rejects(first, /too many/)
    assert.equal((await second).id, 2)
  })

  test('without a way to open others all who wait are told when the last is lost', async () => {
    const { pool } = createPool({ size: 1, canOpen: false, held: [session(0)] })
    const only = await pool.borrow(signal)
    const waiting = [pool.borrow(signal), pool.borrow(signal)]
    await settle()
    only.alive = false
    pool.giveBack(only)
    for (const one of waiting) await assert.rejects(one, (error) => isFault(error, 'unreachable'))
  })

  test('who gives up waiting is out of the row, and leaves no listener behind', async () => {
    const { pool } = createPool({ size: 1 })
    const first = await pool.borrow(signal)
    const gone = new AbortController()
    const given = pool.borrow(gone.signal)
    const next = pool.borrow(signal)
    await settle()
    gone.abort(new Error('stopped'))
    await assert.rejects(given, /stopped/)
    pool.giveBack(first)
    assert.equal(await next, first)
  })

  test('its end ends those that are lent, too', async () => {
    const { pool, opened } = createPool()
    pool.giveBack(await pool.borrow(signal))
    await pool.borrow(signal)
    await pool.borrow(signal)
    await pool[Symbol.asyncDispose]()
    assert.deepEqual(
      opened.map(({ closed }) => closed),
      [true, true],
    )
  })
})
