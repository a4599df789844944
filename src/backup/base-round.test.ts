import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault, isFault } from '#base/faults'
import { silentLog } from '#base/log'
import type { BaseRecord, Vault } from '#vault'
import { type BaseRoundParts, runBaseRound } from './base-round.ts'

const [a, b, c] = ['a', 'b', 'c'].map((url) => ({ url }) as Vault) as [Vault, Vault, Vault]
const baseOf = ({ url }: Vault) => ({ name: `of ${url}` }) as BaseRecord

/** Vaults are told apart only; what is done to them is noted, and fails where `failing` names it. */
async function round(failing: readonly string[] = [], parts: Partial<BaseRoundParts> = {}) {
  const done: string[] = []
  const attempt = (what: string) => {
    const fails = failing.includes(what)
    done.push(fails ? `${what} failed` : what)
    if (fails) throw new Fault('unreachable', what)
  }
  const { taken, failed } = await runBaseRound({
    vaults: [a, b, c],
    opens: async () => true,
    take: async (vault) => {
      attempt(`take ${vault.url}`)
      return baseOf(vault)
    },
    copy: async (from, to, base) => attempt(`copy ${base.name} from ${from.url} to ${to.url}`),
    log: silentLog,
    ...parts,
  })
  return { done, taken: taken?.base.name, failed: [...failed.keys()].map(({ url }) => url) }
}

test('a base is read from the source once, and copied to the other vaults', async () => {
  assert.deepEqual(await round(), {
    done: ['take a', 'copy of a from a to b', 'copy of a from a to c'],
    taken: 'of a',
    failed: [],
  })
})

test('a vault that cannot be copied to or from gets a base of its own', async () => {
  const { done, failed } = await round(['copy of a from a to b'])
  assert.deepEqual(done, [
    'take a',
    'copy of a from a to b failed',
    'take b',
    'copy of b from b to c',
  ])
  assert.deepEqual(failed, [])
})

test('a vault that fails keeps no other from its base', async () => {
  const { done, taken, failed } = await round(['take a'])
  assert.deepEqual(done, ['take a failed', 'take b', 'copy of b from b to c'])
  assert.equal(taken, 'of b')
  assert.deepEqual(failed, ['a'])
})

test('a vault that comes late gets a copy of the last base, if that leads up to now there', async () => {
  const last = { vault: a, base: baseOf(a) }
  assert.deepEqual((await round([], { vaults: [b], last })).done, ['copy of a from a to b'])
  const elsewhere = { vaults: [b], last, opens: async () => false }
  assert.deepEqual((await round([], elsewhere)).done, ['take b'])
})

test('a vault whose own base is the last one gets a new one', async () => {
  const last = { vault: a, base: baseOf(a) }
  assert.deepEqual((await round([], { vaults: [a], last })).done, ['take a'])
})

test('a fault that is for the operator ends the round', async () => {
  const take = async () => Promise.reject(new Fault('refused', 'take a base'))
  await assert.rejects(round([], { take }), (error) => isFault(error, 'refused'))
})
