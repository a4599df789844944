import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { collect, FakeLog, position, source } from '../../test/support/archive.ts'
import type { Storage } from '#storage'
import { MemStorage } from '#storage/mem'
import { Crash, withFaults } from '#storage/wrap/fault'
import { openIdentity } from './identity.ts'
import { createSigner, publicText } from './signing.ts'
import { enrolKey } from './trust.ts'
import { initVault, openForArchiving, openVault } from './vault.ts'

const { signal } = new AbortController()
const cost = { repository: { n: 2, r: 1, p: 1 }, identity: 1 }
const password = 'correct horse'
const first = { history: 'h1', at: position(0) }

function init(storage: MemStorage) {
  return initVault(storage, { password, cost, signal })
}

function open(storage: Storage, withPassword = password) {
  return openVault(storage, { password: withPassword, cost, signal })
}

test('a host that only archives writes log that the vault believes, and reads nothing', async () => {
  const storage = new MemStorage()
  const vault = await init(storage)
  const before = await open(storage)
  const state = await vault.keys.enrol('db7', { signal, sources: [source] })
  assert.ok(!state.includes('AGE-SECRET'))
  const host = await openForArchiving(storage, { state, signal })
  const log = new FakeLog()
  {
    await using writer = await host.archive.openWriter(source, { signal })
    for (const block of log.blocks(0, 2500)) await writer.append(block, { signal })
    await writer.settle({ signal })
  }
  await host.catalog.addGap({ source, after: first, before: undefined, said: 'lost' }, { signal })
  const reader = await host.archive.openReader(source, { signal })
  const bytes = await reader.read('seg-000000', { signal })
  await assert.rejects(collect(bytes), (e) => isFault(e, 'wrong-key'))
  await assert.rejects(host.catalog.sources({ signal }), (e) => isFault(e, 'denied'))
  // Opened before that archiver was enrolled, or after: its keys are read again.
  assert.deepEqual(await before.check({ signal, readData: true }), [])
  const opened = await open(storage)
  assert.deepEqual(await opened.check({ signal, readData: true }), [])
  const there = await opened.archive.openReader(source, { signal })
  assert.deepEqual(await collect(await there.read('seg-000001', { signal })), log.bytes(1000, 2000))
  assert.equal((await opened.catalog.gaps(source, { signal })).length, 1)
  assert.deepEqual(await opened.archive.sources({ signal }), [source])
})

test('what an archiver signs beyond its scope, or after it was struck off, is refused', async () => {
  const storage = new MemStorage()
  const vault = await init(storage)
  const state = await vault.keys.enrol('db7', { signal, sources: ['other'] })
  const host = await openForArchiving(storage, { state, signal })
  const log = new FakeLog()
  const write = async (name: string) => {
    await using writer = await host.archive.openWriter(name, { signal })
    await writer.append(log.block(0, 300), { signal })
    await writer.flush({ signal })
  }
  await write('other')
  assert.deepEqual(await vault.check({ signal, readData: true }), [])
  await assert.rejects(write(source), (e) => isFault(e, 'refused'))
  const [, archiver] = vault.keys.enrolled()
  const written = new Map<string, Buffer>()
  for await (const { key } of storage.list('log/other/')) written.set(key, await storage.get(key))
  const id = archiver?.id ?? ''
  await assert.rejects(vault.keys.strike(id, { signal }), (error) => {
    return isFault(error, 'refused') && /\d objects of the log that it wrote/.test(error.message)
  })
  assert.equal((await open(storage)).keys.enrolled().length, 2, 'still believed')
  await vault.keys.strike(id, { signal, withLog: true })
  const opened = await open(storage)
  assert.deepEqual(await opened.check({ signal, readData: true }), [])
  assert.deepEqual(await opened.archive.spans('other', { signal }), [])
  // Its lease, never given back, holds nobody up.
  for (let epoch = 5; epoch < 8; epoch++) {
    const lease = written.get('log/other/=lease/00000001') ?? Buffer.alloc(0)
    await storage.put(`log/${source}/=lease/0000000${epoch}`, lease)
  }
  await using writer = await opened.archive.openWriter(source, { signal })
  await writer.append(log.block(0, 300), { signal })
  await writer.flush({ signal })
  // Put back by whoever may write there, it is believed as little.
  for (const [key, bytes] of written) await storage.put(key, bytes)
  const findings = await opened.check({ signal, readData: true })
  assert.ok(findings.some(({ code }) => code === 'forged'))
})

test('a damaged enrolment takes the trust from its archiver alone: the vault opens, and the check names it', async () => {
  const storage = new MemStorage()
  const vault = await init(storage)
  await vault.keys.enrol('db7', { signal })
  const [, archiver] = vault.keys.enrolled()
  const key = `catalog/keys/${archiver?.id}.json`
  const bytes = await storage.get(key)
  await storage.put(key, bytes.subarray(0, bytes.length - 9))
  const opened = await open(storage)
  assert.deepEqual(
    opened.keys.enrolled().map(({ kind }) => kind),
    ['root'],
  )
  const findings = await opened.check({ signal, readData: false })
  assert.deepEqual(
    findings.map(({ severity, object }) => [severity, object]),
    [['damaged', key]],
  )
  // The way out: it is struck off by the id that its name tells.
  await opened.keys.strike(archiver?.id ?? '', { signal })
  assert.deepEqual(await opened.check({ signal, readData: false }), [])
})

test('an archiver is enrolled once under a name, and struck off by its name or its key', async () => {
  const storage = new MemStorage()
  const vault = await init(storage)
  await vault.keys.enrol('db7', { signal })
  const [, first] = vault.keys.enrolled()
  await assert.rejects(vault.keys.enrol('db7', { signal }), (error) => {
    assert.ok(isFault(error, 'exists'))
    assert.match(error.message, /^enrol db7 at mem:.*: an archiver of that name is enrolled, key /)
    assert.match(error.hint ?? '', new RegExp(`vault key strike ${first?.id}`))
    return true
  })
  await assert.rejects(vault.keys.strike('db8', { signal }), (error) => {
    assert.ok(isFault(error, 'missing'))
    assert.equal(error.hint, `The archivers are: db7 (${first?.id}).`)
    return true
  })
  // Two of one name are of before names had to differ.
  const { root } = (await openIdentity(storage, password, { signal })).secrets
  const publicKey = publicText(createSigner())
  await enrolKey(storage, { name: 'db7', publicKey }, root, { signal })
  const again = await open(storage)
  await assert.rejects(again.keys.strike('db7', { signal }), (error) => isFault(error, 'usage'))
  await again.keys.strike(first?.id ?? '', { signal })
  await again.keys.strike('db7', { signal })
  assert.equal(again.keys.enrolled().length, 1)
  await again.keys.enrol('db7', { signal })
})

test('a bad archiver state, and one of another vault, are named by the file that they came from', async () => {
  const storage = new MemStorage()
  const vault = await init(storage)
  const good = await vault.keys.enrol('db7', { signal })
  const what = 'the archiver file /etc/db7.key'
  const flaws: readonly (readonly [string, RegExp])[] = [
    ['', /it is no JSON/],
    ['{}', /vault/],
    [good.replace(/"signingKey": "../, '"signingKey": "'), /signing key/],
    [good.replace('age1', 'age2'), /recipient/],
    [good.replace(vault.id, 'f'.repeat(32)), /it is not vault f+, which/],
  ]
  for (const [state, said] of flaws) {
    await assert.rejects(openForArchiving(storage, { state, what, signal }), (error) => {
      assert.ok(isFault(error))
      assert.match(error.message, /the archiver file \/etc\/db7\.key/)
      assert.match(error.message, said)
      return true
    })
  }
})

test('after a host was struck off the vault reads, takes bases and goes on with its log; what is lost is a gap', async () => {
  const storage = new MemStorage()
  const vault = await init(storage)
  const state = await vault.keys.enrol('db7', { signal })
  const host = await openForArchiving(storage, { state, signal })
  const log = new FakeLog()
  const write = async (by: typeof host, from: number, to: number, hole = false) => {
    await using writer = await by.archive.openWriter(source, { signal })
    if (hole) writer.allowGap()
    for (const block of log.blocks(from, to)) await writer.append(block, { signal })
    await writer.settle({ signal })
  }
  const facts = { engine: 'e', flavor: 'f', version: '1', url: 'u://' }
  await write(vault, 0, 1300)
  for (let n = 0; n < 70; n++) {
    await host.catalog.addSource({ name: source, ...facts, version: `${n}` }, { signal })
  }
  // Joins them into a bundle, and is recorded though an archiver said the same.
  await vault.catalog.addSource({ name: source, ...facts, version: '69' }, { signal })
  await host.catalog.addSource({ name: source, ...facts, version: 'loose' }, { signal })
  await write(host, 1300, 3500)
  const [, archiver] = vault.keys.enrolled()
  const removed = await vault.keys.strike('db7', { signal, withLog: true })
  assert.ok(removed >= 3, `${removed} objects`)
  const opened = await open(storage)
  assert.deepEqual(
    (await opened.catalog.sources({ signal })).map(({ version }) => version),
    ['69'],
  )
  const [span, ...more] = await opened.archive.spans(source, { signal })
  assert.deepEqual([span?.next, more], [position(1300), []])
  const [gap] = await opened.catalog.gaps(source, { signal })
  assert.match(gap?.said ?? '', /was struck off/)
  assert.deepEqual(gap?.after, { history: 'h1', at: position(1300) })
  // Another goes on: from where the believed log ends, or behind a hole.
  await write(opened, 3500, 4500, true)
  const reader = await opened.archive.openReader(source, { signal })
  const read = async (segment: string) => collect(await reader.read(segment, { signal }))
  assert.deepEqual(await read('seg-000000'), log.bytes(0, 1000))
  assert.deepEqual(await read('seg-000004'), log.bytes(4000, 4500))
  assert.equal((await opened.archive.spans(source, { signal })).length, 2)
  await assert.rejects(opened.keys.strike(archiver?.id ?? '', { signal }), (error) =>
    isFault(error, 'missing'),
  )
  const said = (await opened.check({ signal, readData: true })).map(({ code }) => code)
  assert.deepEqual(said, ['hole'])
})

test('striking a host off that was broken off is gone on with by the id of its key', async () => {
  const inner = new MemStorage()
  const vault = await init(inner)
  const state = await vault.keys.enrol('db7', { signal })
  const host = await openForArchiving(inner, { state, signal })
  {
    await using writer = await host.archive.openWriter(source, { signal })
    for (const block of new FakeLog().blocks(0, 2500)) await writer.append(block, { signal })
    await writer.settle({ signal })
  }
  const [, archiver] = vault.keys.enrolled()
  const dying = await open(withFaults(inner, { crashAt: 3 }))
  await assert.rejects(dying.keys.strike('db7', { signal, withLog: true }), Crash)
  const opened = await open(inner)
  assert.equal(opened.keys.enrolled().length, 1)
  assert.ok((await opened.keys.strike(archiver?.id ?? '', { signal })) > 0)
  assert.deepEqual(await opened.archive.spans(source, { signal }), [])
})
