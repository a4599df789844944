import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { collect, FakeLog, position, source } from '../../test/support/archive.ts'
import type { Storage } from '#storage'
import { MemStorage } from '#storage/mem'
import { Crash, withFaults } from '#storage/wrap/fault'
import { encryptTo } from './archive/age/age.ts'
import { openIdentity } from './identity.ts'
import { initRepository } from './repository/open.ts'
import { formatSignedJson } from './signed-json.ts'
import { createSigner } from './signing.ts'
import { initVault, openVault } from './vault.ts'

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

test('a vault opens with its password and with no other', async () => {
  const storage = new MemStorage()
  const made = await init(storage)
  const opened = await open(storage)
  assert.equal(opened.id, made.id)
  await assert.rejects(open(storage, 'wrong horse'), (e) => isFault(e, 'wrong-key'))
  await assert.rejects(init(storage), (e) => isFault(e, 'exists'))
  await assert.rejects(open(new MemStorage()), (e) => isFault(e, 'missing'))
})

test('one password opens the repository, the log and the catalog, and a second one does too', async () => {
  const storage = new MemStorage()
  const vault = await init(storage)
  await vault.keys.add('deputy', 'battery staple', { signal })
  await assert.rejects(vault.keys.add('deputy', 'x', { signal }), (e) => isFault(e, 'exists'))
  const log = new FakeLog()
  {
    await using writer = await vault.archive.openWriter(source, { signal })
    await writer.append(log.block(0, 300), { signal })
    await writer.flush({ signal })
  }
  const other = await open(storage, 'battery staple')
  // Also without deriving a second key.
  for (const secret of [password, 'battery staple']) {
    const { masterKeys } = await openIdentity(storage, secret, { signal })
    assert.equal(masterKeys, vault.repository.masterKeys)
  }
  const reader = await other.archive.openReader(source, { signal })
  assert.deepEqual(await collect(await reader.read('seg-000000', { signal })), log.bytes(0, 300))
  assert.deepEqual(await other.keys.list({ signal }), [
    { name: 'deputy', current: true },
    { name: 'main', current: false },
  ])
})

test('a password that was changed or removed opens nothing any more', async () => {
  const storage = new MemStorage()
  const vault = await init(storage)
  await vault.keys.add('deputy', 'battery staple', { signal })
  await vault.keys.change('new horse', { signal })
  await assert.rejects(open(storage), (e) => isFault(e, 'wrong-key'))
  const changed = await open(storage, 'new horse')
  assert.equal((await changed.repository.listKeys({ signal })).length, 2)
  await assert.rejects(changed.keys.remove('main', { signal }), (e) => isFault(e, 'refused'))
  await assert.rejects(changed.keys.remove('nobody', { signal }), (e) => isFault(e, 'missing'))
  await changed.keys.remove('deputy', { signal })
  await assert.rejects(open(storage, 'battery staple'), (e) => isFault(e, 'wrong-key'))
  assert.equal((await changed.repository.listKeys({ signal })).length, 1)
})

test('a password whose adding or removing was broken off is whole or gone the next time', async () => {
  for (const crashAt of [0, 1, 2]) {
    const storage = new MemStorage()
    await init(storage)
    const adding = await open(withFaults(storage, { crashAt }))
    await assert.rejects(adding.keys.add('deputy', 'battery staple', { signal }), Crash)
    await (await open(storage)).keys.add('deputy', 'battery staple', { signal })
    const added = await open(storage, 'battery staple')
    assert.deepEqual(await added.check({ signal, readData: true }), [])
    const removing = await open(withFaults(storage, { crashAt }))
    await assert.rejects(removing.keys.remove('deputy', { signal }), Crash)
    const vault = await open(storage)
    await vault.keys.remove('deputy', { signal })
    await assert.rejects(vault.keys.remove('deputy', { signal }), (e) => isFault(e, 'missing'))
    assert.equal((await vault.repository.listKeys({ signal })).length, 1)
    assert.deepEqual(await vault.check({ signal, readData: true }), [])
  }
})

test('a change of password that was broken off leaves one password, and the next change clears up', async () => {
  for (const crashAt of [0, 1, 2, 3]) {
    const storage = new MemStorage()
    await init(storage)
    const changing = await open(withFaults(storage, { crashAt }))
    await assert.rejects(changing.keys.change('new horse', { signal }), Crash)
    const isNew = crashAt === 3
    await assert.rejects(open(storage, isNew ? password : 'new horse'), (e) =>
      isFault(e, 'wrong-key'),
    )
    const vault = await open(storage, isNew ? 'new horse' : password)
    const codes = (await vault.check({ signal, readData: true })).map(({ code }) => code)
    assert.deepEqual(codes, isNew ? ['stranger'] : [])
    await vault.keys.change('third horse', { signal })
    const changed = await open(storage, 'third horse')
    assert.equal((await changed.repository.listKeys({ signal })).length, 1)
    assert.deepEqual(await changed.check({ signal, readData: true }), [])
  }
})

test('a damaged identity does not lock out who holds another password', async () => {
  const storage = new MemStorage()
  const vault = await init(storage)
  await vault.keys.add('zoe', 'battery staple', { signal })
  await storage.put('identity/main.age', Buffer.from('nothing'))
  await open(storage, 'battery staple')
  await assert.rejects(open(storage), (e) => isFault(e, 'corrupt'))
})

test('a repository without an identity, or a making that was broken off anywhere, is made whole by init', async () => {
  const plain = new MemStorage()
  await initRepository(plain, password, { signal, passwordCost: cost.repository })
  await assert.rejects(open(plain), (e) => isFault(e, 'missing'))
  await init(plain)
  assert.deepEqual(await (await open(plain)).catalog.sources({ signal }), [])
  const whole = new MemStorage()
  await init(whole)
  await whole.delete('catalog/vault.json')
  const mended = await open(whole)
  assert.ok(await whole.stat('catalog/vault.json'))
  assert.deepEqual(await mended.catalog.check({ signal }), [])
})

test('catalog records come back as they were put in, in their order', async () => {
  const storage = new MemStorage()
  const vault = await init(storage)
  const record = {
    name: 'shop "1" 🛒',
    engine: 'postgres',
    flavor: 'postgresql',
    version: '17.1',
    url: 'postgres://db/shop',
  }
  for (const version of ['16', '16', '17']) {
    await vault.catalog.addSource({ ...record, version }, { signal })
  }
  const opened = await open(storage)
  const sources = await opened.catalog.sources({ signal })
  assert.deepEqual(
    sources.map(({ name, version }) => [name, version]),
    [[record.name, '17']],
  )
  let count = 0
  for await (const _ of storage.list('catalog/sources/')) count += 1
  assert.equal(count, 2)
  const base = {
    source,
    name: 'monday',
    snapshot: 'ab'.repeat(32),
    first,
    consistent: { history: 'h1', at: position(77) },
    consistentUs: 1_700_000_000_123_456n,
    facts: { details: { a: 'b' }, sizeBytes: 12n },
  }
  await vault.catalog.addBase(base, { signal })
  assert.deepEqual(await opened.catalog.bases(source, { signal }), [])
  await storage.put(`snapshots/${base.snapshot}`, Buffer.from('x'))
  const [back] = await opened.catalog.bases(source, { signal })
  assert.deepEqual(
    { ...back, recordedMs: 0 },
    {
      ...base,
      facts: { details: { a: 'b' }, sizeBytes: '12' },
      recordedMs: 0,
    },
  )
})

test('many records are joined into bundles, and every one of them is still there', async () => {
  const storage = new MemStorage()
  const vault = await init(storage)
  for (let n = 0; n < 150; n++) {
    await vault.catalog.addGap(
      { source, after: first, before: first, said: `gap ${n}` },
      { signal },
    )
  }
  let objects = 0
  for await (const _ of storage.list('catalog/gaps/')) objects += 1
  assert.ok(objects < 100, `${objects} objects`)
  const gaps = await (await open(storage)).catalog.gaps(source, { signal })
  assert.deepEqual(
    gaps.map(({ said }) => said),
    Array.from({ length: 150 }, (_, n) => `gap ${n}`),
  )
  assert.deepEqual(await vault.check({ signal, readData: true }), [])
})

test('a catalog record that a stranger encrypted, or that was moved or flipped, is named and refused', async () => {
  const storage = new MemStorage()
  const vault = await init(storage)
  await vault.catalog.addGap({ source, after: first, before: first, said: 'true' }, { signal })
  const [key = ''] = await Array.fromAsync(storage.list('catalog/gaps/'), (info) => info.key)
  const bytes = await storage.get(key)
  const moved = key.replace('gaps/shop', 'gaps/shed')
  await storage.put(moved, bytes)
  const flipped = `${key.slice(0, -20)}0${key.slice(-19)}`
  const bad = Buffer.from(bytes)
  bad[bad.length - 3] = (bad[bad.length - 3] ?? 0) ^ 1
  await storage.put(flipped, bad)
  const record = JSON.parse((await storage.get('catalog/vault.json')).toString()) as {
    record: string
  }
  const { recipients } = JSON.parse(record.record) as { recipients: string[] }
  const { parseRecipient } = await import('./archive/age/keys.ts')
  const stranger = `${key.slice(0, -20)}1${key.slice(-19)}`
  await storage.put(stranger, encryptTo(recipients.map(parseRecipient), Buffer.from('{"a":1}')))
  const findings = await vault.check({ signal, readData: true })
  assert.deepEqual(
    new Set(findings.map(({ object }) => object)),
    new Set([flipped, moved, stranger]),
  )
  await assert.rejects(vault.catalog.gaps('shed', { signal }), (e) => isFault(e, 'forged'))
})

test('every object beside the repository, flipped anywhere or cut, gives a Fault or a finding, never a wrong record', async () => {
  const storage = new MemStorage()
  const vault = await init(storage)
  await vault.keys.enrol('db7', { signal })
  await vault.catalog.addSource(
    { name: source, engine: 'e', flavor: 'f', version: '1', url: 'u' },
    { signal },
  )
  await vault.catalog.addGap({ source, after: first, before: first, said: 'true' }, { signal })
  const keys = await Array.fromAsync(storage.list(''), ({ key }) => key)
  const own = keys.filter((key) => /^(catalog|identity)\//.test(key))
  assert.equal(own.length, 6)
  let damaged = 0
  for (const key of own) {
    const bytes = await storage.get(key)
    for (let at = 0; at < bytes.length; at += 1 + Math.floor(bytes.length / 40)) {
      const bad = Buffer.from(bytes)
      bad[at] = (bad[at] ?? 0) ^ (1 << (at % 8))
      await assertNoticed(storage, key, bad)
      damaged += 1
    }
    await assertNoticed(storage, key, bytes.subarray(0, bytes.length - 2))
    await assertNoticed(storage, key, Buffer.alloc(0))
  }
  assert.ok(damaged > 150)
})

async function assertNoticed(storage: MemStorage, key: string, bytes: Buffer): Promise<void> {
  const bad = storage.copy()
  await bad.put(key, bytes)
  let findings: readonly unknown[] = []
  try {
    const vault = await open(bad)
    findings = await vault.check({ signal, readData: true })
    const [gap] = await vault.catalog.gaps(source, { signal })
    assert.equal(gap?.said, 'true')
  } catch (error) {
    assert.ok(isFault(error), `${key}: ${String(error)}`)
    return
  }
  // The note for removing a password is read only then.
  if (!key.startsWith('catalog/passwords/')) assert.ok(findings.length > 0, key)
}

test('a vault of a newer format is refused, and so is one whose record is of another vault', async () => {
  const storage = new MemStorage()
  await init(storage)
  const { secrets } = await openIdentity(storage, password, { signal })
  const purpose = 'redoubt vault record v1'
  const recipients = [secrets.identity.recipient.text]
  const newer = { format: 2, vault: secrets.vault, recipients }
  await storage.put('catalog/vault.json', formatSignedJson(purpose, newer, secrets.root))
  await assert.rejects(open(storage), (e) => isFault(e, 'unsupported'))
  const other = { format: 1, vault: 'other', recipients }
  await storage.put('catalog/vault.json', formatSignedJson(purpose, other, secrets.root))
  await assert.rejects(open(storage), (e) => isFault(e, 'forged'))
  const strange = formatSignedJson(purpose, { ...newer, format: 1 }, createSigner())
  await storage.put('catalog/vault.json', strange)
  await assert.rejects(open(storage), (e) => isFault(e, 'forged'))
})

test('a catalog record that could not be read back is refused before it is written', async () => {
  const storage = new MemStorage()
  const vault = await init(storage)
  const proof = {
    source,
    base: 'monday',
    target: 'latest',
    reached: first,
    reachedUs: undefined,
    ok: true,
    checks: [],
    tookMs: 1.5,
  }
  await assert.rejects(vault.catalog.addProof(proof, { signal }), /tookMs/)
  assert.deepEqual(await vault.catalog.proofs(source, { signal }), [])
})

test('a password whose repository key is gone is not called wrong: what is gone is named', async () => {
  const storage = new MemStorage()
  const vault = await init(storage)
  await vault.keys.add('deputy', 'battery staple', { signal })
  await storage.delete(`keys/${vault.repository.keyId}`)
  await assert.rejects(open(storage), (error) => {
    assert.ok(isFault(error, 'corrupt'))
    assert.match(error.message, /keys\/[0-9a-f]{64}, which belongs to password main, is gone/)
    return true
  })
  await open(storage, 'battery staple')
})
