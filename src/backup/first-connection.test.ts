import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLog } from '#base/log'
import type { Engine } from '#engines'
import { ManualTime } from '../../test/support/manual-time.ts'
import { FirstConnection } from './first-connection.ts'

const { signal } = new AbortController()

/** A kind of engine that counts the connections that are open. */
function countingKind() {
  const open = new Set<number>()
  let opened = 0
  const kind = {
    open: async () => {
      const id = opened++
      open.add(id)
      const closed = { [Symbol.asyncDispose]: async () => void open.delete(id) }
      return closed as unknown as Engine
    },
  }
  return { kind, open }
}

function request(kind: ReturnType<typeof countingKind>['kind'], time: ManualTime) {
  return { kind, url: 'postgres://db', time, log: silentLog, signal }
}

test('capture takes the connection that was probed over, once', async () => {
  const { kind, open } = countingKind()
  {
    await using first = new FirstConnection(request(kind, new ManualTime()))
    const probed = await first.open()
    {
      await using taken = await first.take()
      assert.equal(taken, probed)
    }
    assert.equal(open.size, 0)
    assert.equal(await first.take(), undefined)
  }
  assert.equal(open.size, 0)
})

test('a connection that lay idle for long is closed and not used: the server may be another by now', async () => {
  const { kind, open } = countingKind()
  const time = new ManualTime()
  await using first = new FirstConnection(request(kind, time))
  await first.open()
  await time.advance(10_001)
  assert.equal(await first.take(), undefined)
  assert.equal(open.size, 0)
})

test('a connection that nobody took is closed in the end', async () => {
  const { kind, open } = countingKind()
  {
    await using first = new FirstConnection(request(kind, new ManualTime()))
    await first.open()
    assert.equal(open.size, 1)
  }
  assert.equal(open.size, 0)
})
