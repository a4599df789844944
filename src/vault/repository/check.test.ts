import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import {
  hastyTime,
  makeRepository,
  noise,
  password,
  readObjects,
  saveFolder,
} from '../../../test/support/repositories.ts'
import { MemStorage } from '../../storage/mem/mem.ts'
import { withFaults } from '../../storage/wrap/fault.ts'
import { checkRepository, type CheckReport } from './check.ts'
import { choosePacks, parseSubset } from './check-data.ts'
import { openRepository } from './open.ts'

const signal = new AbortController().signal
const storage = new MemStorage()
let snapshots: readonly string[] = []

before(async () => {
  const repository = await makeRepository(storage)
  const common = { shared: noise('shared', 700_000), deep: { er: { leaf: Buffer.from('leaf') } } }
  const first = await saveFolder(
    repository,
    { ...common, one: noise('one', 1000) },
    { time: '2026-01-01T00:00:00Z' },
  )
  const second = await saveFolder(
    repository,
    { ...common, two: noise('two', 1000) },
    { time: '2026-01-02T00:00:00Z' },
  )
  snapshots = [first.id, second.id].sort()
})

async function check(on: MemStorage, subset?: string): Promise<CheckReport> {
  await using repository = await openRepository(on, password, { signal })
  return await checkRepository(repository, {
    signal,
    time: hastyTime,
    readData: subset === undefined ? undefined : parseSubset(subset),
  })
}

test('checkRepository() finds nothing wrong with a sound repository, and counts it', async () => {
  const report = await check(storage, '100%')
  assert.deepEqual(report.findings, [])
  assert.equal(report.ok, true)
  assert.equal(report.snapshots, 2)
  assert.equal(report.trees, 6)
  assert.equal(report.packsRead, report.packs)
  assert.ok(report.packs >= 4 && report.readBytes > 700_000)
  assert.equal((await check(storage)).packsRead, 0)
})

const damages: readonly (readonly [string, (bytes: Buffer) => Buffer | undefined])[] = [
  ['deleted', () => undefined],
  ['cut short', (bytes) => bytes.subarray(0, bytes.length - 1)],
  ['cut to a half', (bytes) => bytes.subarray(0, bytes.length >> 1)],
  ['lengthened', (bytes) => Buffer.concat([bytes, Buffer.of(0)])],
  ['flipped first', (bytes) => flip(bytes, 0)],
  ['flipped within', (bytes) => flip(bytes, bytes.length >> 1)],
  ['flipped last', (bytes) => flip(bytes, bytes.length - 1)],
]

function flip(bytes: Buffer, at: number): Buffer {
  const changed = Buffer.from(bytes)
  changed[at] = (changed[at] ?? 0) ^ 1
  return changed
}

test('checkRepository() with all data finds every damage to every object, and names it', async () => {
  let tried = 0
  for (const [key, bytes] of await readObjects(storage)) {
    if (key === 'config' || key.startsWith('keys/')) continue
    for (const [said, damage] of damages) {
      if (key.startsWith('snapshots/') && said === 'deleted') continue
      const copy = storage.copy()
      const damaged = damage(bytes)
      if (damaged) await copy.put(key, damaged)
      else await copy.delete(key)
      const report = await check(copy, '100%')
      const what = `${key} ${said}`
      assert.equal(report.ok, false, what)
      const named = report.findings.filter((finding) => finding.severity === 'error')
      const id = key.slice(key.lastIndexOf('/') + 1)
      // A lost index is told by what only it listed.
      if (!(key.startsWith('index/') && said === 'deleted')) {
        assert.ok(
          named.some((finding) => finding.about.includes(id)),
          what,
        )
      }
      // Behind the blobs stands only what is needed when the index is lost.
      if (!(key.startsWith('data/') && said === 'flipped last')) {
        assert.ok(
          named.some((finding) => finding.snapshots.length > 0),
          what,
        )
      }
      tried += 1
    }
  }
  assert.ok(tried > 50, `${tried}`)
})

test('checkRepository() names a damaged key, also one that was not asked to open', async () => {
  const copy = storage.copy()
  const repository = await openRepository(copy, password, { signal })
  const other = await repository.addKey('another', { signal })
  for (const id of [other, repository.keyId]) {
    const bytes = await copy.get(`keys/${id}`)
    await copy.put(`keys/${id}`, flip(bytes, bytes.length >> 1))
    const { keyId, masterKeys } = repository
    const again = await openRepository(copy, password, { signal, known: { keyId, masterKeys } })
    const report = await checkRepository(again, { signal })
    assert.deepEqual(
      report.findings.map(({ severity, about }) => [severity, about]),
      [['error', `key ${id}`]],
    )
    await copy.put(`keys/${id}`, bytes)
  }
})

test('checkRepository() names the snapshots that a damage touches, and no other', async () => {
  const repository = await openRepository(storage, password, { signal })
  await repository.loadIndex({ signal })
  const list = await repository.snapshots({ signal })
  for (const { tree, id } of list) {
    const place = repository.find('tree', tree)
    const copy = storage.copy()
    await copy.delete(`data/${place?.pack.slice(0, 2)}/${place?.pack}`)
    const { findings } = await check(copy)
    const affected = new Set(findings.flatMap((finding) => finding.snapshots))
    assert.ok(affected.has(id))
    // The second snapshot stored nothing that the first needs; the first stored what both share.
    if (id === list[1]?.id) assert.deepEqual([...affected], [id])
    else assert.deepEqual([...affected].sort(), snapshots)
  }
})

test('checkRepository() without reading data finds what is missing or has another size', async () => {
  for (const [key, bytes] of await readObjects(storage)) {
    if (!key.startsWith('data/')) continue
    const copy = storage.copy()
    await copy.put(key, bytes.subarray(1))
    assert.equal((await check(copy)).ok, false)
  }
})

test('checkRepository() notes packs that no index lists, and is content', async () => {
  const copy = storage.copy()
  await copy.put(`data/ab/${'ab'.repeat(32)}`, Buffer.alloc(100))
  const report = await check(copy, '100%')
  assert.equal(report.ok, true)
  assert.deepEqual(
    report.findings.map((finding) => finding.about),
    ['1 packs'],
  )
})

test('a failed listing ends the check; it never looks like an empty repository', async () => {
  for (const folder of ['snapshots/', 'index/', 'data/']) {
    const faulty = withFaults(storage.copy())
    const list = faulty.list.bind(faulty)
    faulty.list = async function* (prefix, options) {
      if (prefix === folder) throw new Error('no listing')
      yield* list(prefix, options)
    }
    const repository = await openRepository(faulty, password, { signal })
    await assert.rejects(
      checkRepository(repository, { signal, time: hastyTime }),
      /no listing/,
      folder,
    )
  }
})

test('parseSubset() and choosePacks() choose parts that together are all', () => {
  const packs = new Map(
    Array.from({ length: 256 }, (_, n) => [n.toString(16).padStart(2, '0').repeat(32), 10]),
  )
  const chosen = [1, 2, 3].flatMap((n) => [
    ...choosePacks(packs, parseSubset(`${n}/3`), Math.random),
  ])
  assert.equal(new Set(chosen).size, 256)
  assert.equal(chosen.length, 256)
  assert.equal(choosePacks(packs, parseSubset('10%'), Math.random).size, 26)
  assert.equal(choosePacks(packs, parseSubset('95B'), Math.random).size, 10)
  assert.equal(choosePacks(new Map(), parseSubset('1%'), Math.random).size, 0)
  for (const text of ['0/5', '6/5', '1/257', '0%', '101%', '0', 'x', '']) {
    assert.throws(() => parseSubset(text), { code: 'usage' }, text)
  }
})
