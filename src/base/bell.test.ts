import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Bell } from './bell.ts'

const { signal } = new AbortController()

test('a ring before the wait is heard once', async () => {
  const bell = new Bell()
  bell.ring()
  bell.ring()
  await bell.heard(signal)
  let heard = false
  const again = bell.heard(signal).then(() => {
    heard = true
  })
  await new Promise(setImmediate)
  assert.equal(heard, false)
  bell.ring()
  await again
})

test('a wait ends with the reason of an abort, before it or during it', async () => {
  const bell = new Bell()
  const abort = new AbortController()
  const waiting = bell.heard(abort.signal)
  abort.abort(new Error('enough'))
  await assert.rejects(waiting, /enough/)
  await assert.rejects(bell.heard(abort.signal), /enough/)
})
