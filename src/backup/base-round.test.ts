import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault, isFault } from '#base/faults'
import { silentLog } from '#base/log'
import type { BaseRecord, Vault } from '#vault'
import { BaseRound } from './base-round.ts'

/** Vaults are told apart only; what is done to them is noted, and fails as often as `failures` says. */
function begin(failures: Readonly<Record<string, number>> = {}) {
  const vaults = ['a', 'b', 'c'].map((url) => ({ url }) as Vault)
  const left = new Map(Object.entries(failures))
  const done: string[] = []
  const attempt = (what: string) => {
    const count = left.get(what) ?? 0
    left.set(what, count - 1)
    done.push(count > 0 ? `${what} failed` : what)
    if (count > 0) throw new Fault('unreachable', what)
  }
  const round = new BaseRound({
    vaults,
    take: async ({ url }) => {
      attempt(`take ${url}`)
      return { name: `of ${url}` } as BaseRecord
    },
    copy: async (from, to) => attempt(`copy ${from.url} ${to.url}`),
    log: silentLog,
  })
  return { round, done }
}

test('a base is read from the source once, and copied to the other vaults', async () => {
  const { round, done } = begin()
  await round.run()
  assert.deepEqual(done, ['take a', 'copy a b', 'copy a c'])
})

test('a vault that cannot be copied to or from gets a base of its own', async () => {
  const { round, done } = begin({ 'copy a b': 1 })
  await round.run()
  assert.deepEqual(done, ['take a', 'copy a b failed', 'take b', 'copy a c'])
})

test('a vault that fails keeps no other from its base, and is served when the round is run again', async () => {
  const { round, done } = begin({ 'take a': 2 })
  await assert.rejects(round.run(), (error) => isFault(error, 'unreachable'))
  assert.deepEqual(done, ['take a failed', 'take b', 'copy b c'])
  await round.run()
  assert.deepEqual(done.slice(3), ['copy b a'])
})

test('a fault that is for the operator ends the round', async () => {
  const vaults = ['a', 'b'].map((url) => ({ url }) as Vault)
  const take = async () => Promise.reject(new Fault('refused', 'take a base'))
  const copy = async () => assert.fail('nothing to copy')
  await assert.rejects(new BaseRound({ vaults, take, copy, log: silentLog }).run(), (error) =>
    isFault(error, 'refused'),
  )
})
