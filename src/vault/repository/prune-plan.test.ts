import assert from 'node:assert/strict'
import { test } from 'node:test'
import { packBlobsTarget } from './limits.ts'
import { type PackUse, parseUnusedLimit, planPrune, type PruneRules } from './prune-plan.ts'

const mb = 1_000_000

function pack(id: string, usedMb: number, unusedMb: number, facts: Partial<PackUse> = {}): PackUse {
  return {
    id,
    usedBytes: usedMb * mb,
    unusedBytes: unusedMb * mb,
    blobCount: 10,
    holdsTrees: false,
    holdsData: true,
    isUncompressed: false,
    ...facts,
  }
}

function plan(packs: readonly PackUse[], rules: PruneRules = {}) {
  const { unused, repack, leftBytes } = planPrune(packs, rules)
  return { unused: unused.map(({ id }) => id), repack: repack.map(({ id }) => id), leftBytes }
}

test('planPrune() drops what nothing needs, and rewrites the emptiest until the limit is kept', () => {
  const packs = [
    pack('a', 16, 0),
    pack('b', 0, 16),
    pack('c', 1, 15),
    pack('d', 15, 1),
    pack('e', 8, 8),
  ]
  assert.deepEqual(plan(packs), { unused: ['b'], repack: ['c', 'e'], leftBytes: mb })
  const none = { maxUnused: parseUnusedLimit('0') }
  assert.deepEqual(plan(packs, none).repack, ['c', 'e', 'd'])
  const any = { maxUnused: parseUnusedLimit('unlimited') }
  assert.deepEqual(plan(packs, any), { unused: ['b'], repack: [], leftBytes: 24 * mb })
  assert.deepEqual(plan(packs, { ...none, maxRepackBytes: 20 * mb }).repack, ['c'])
})

test('planPrune() rewrites packs of mixed kinds, and uncompressed ones when told', () => {
  const mixed = pack('m', 16, 0, { holdsTrees: true })
  const plain = pack('p', 16, 0, { isUncompressed: true })
  assert.deepEqual(plan([mixed, plain]).repack, ['m'])
  assert.deepEqual(plan([mixed, plain], { repackUncompressed: true }).repack, ['m', 'p'])
})

test('planPrune() joins small packs once together they fill one', () => {
  const small = (count: number, facts: Partial<PackUse> = {}) =>
    Array.from({ length: count }, (_, at) => pack(`s${at}${facts.holdsTrees}`, 2, 0, facts))
  assert.equal(plan(small(8)).repack.length, 0)
  assert.equal(plan(small(9)).repack.length, 9)
  // A pack full of tiny blobs is as full as it gets.
  assert.equal(plan(small(9, { blobCount: packBlobsTarget })).repack.length, 0)
  const trees = { holdsTrees: true, holdsData: false }
  assert.equal(plan([...small(8), ...small(8, trees)]).repack.length, 0)
})

test('parseUnusedLimit() reads a share, a size, or unlimited', () => {
  assert.deepEqual(parseUnusedLimit('2.5%'), { kind: 'percent', percent: 2.5 })
  assert.deepEqual(parseUnusedLimit('100M'), { kind: 'bytes', sizeBytes: 104_857_600 })
  for (const text of ['100%', '-1', 'x', '']) {
    assert.throws(() => parseUnusedLimit(text), { code: 'usage' }, text)
  }
})
