import assert from 'node:assert/strict'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { Fault } from '#base/faults'
import type { Storage } from '../storage.ts'
import { chunks, collect, pattern, rejects } from '../storage.suite.ts'
import { openFsStorage } from './fs.ts'

const folder = fs.mkdtempSync(join(tmpdir(), 'redoubt-fs-'))
process.on('exit', () => fs.rmSync(folder, { recursive: true, force: true }))

let roots = 0
async function openNew(now?: () => number): Promise<{ root: string; storage: Storage }> {
  const root = join(folder, `root-${++roots}`)
  return { root, storage: await openFsStorage(root, { create: true, now }) }
}

const keysOf = async (storage: Storage, prefix = '') =>
  (await collect(storage.list(prefix))).map((info) => info.key)

test('what is no object of ours is neither listed nor read', async () => {
  const { root, storage } = await openNew()
  await storage.put('data/a', pattern(3))
  fs.writeFileSync(join(root, 'data', 'with space'), 'x')
  fs.writeFileSync(join(root, 'data', '.redoubt-tmp-0123'), 'x')
  fs.symlinkSync('/etc/passwd', join(root, 'data', 'link'))
  fs.symlinkSync('/etc', join(root, 'etc'))
  fs.mkdirSync(join(root, 'empty', 'below'), { recursive: true })
  assert.deepEqual(await keysOf(storage), ['data/a'])
  await rejects(storage.get('data/link'), 'missing')
  assert.equal(await storage.stat('data/link'), undefined)
  assert.equal(await storage.stat('data'), undefined)
})

test('the folder itself may be reached by a link', async () => {
  const { root, storage } = await openNew()
  await storage.put('data/a', pattern(3))
  fs.symlinkSync(root, `${root}-link`)
  const linked = await openFsStorage(`${root}-link`)
  assert.deepEqual(await keysOf(linked), ['data/a'])
  await linked.put('data/b', pattern(3))
  assert.deepEqual(await keysOf(storage), ['data/a', 'data/b'])
})

test('list() goes through files and folders in the order of whole keys', async () => {
  const { storage } = await openNew()
  // Names that sort differently before and after a `/` is appended to them.
  const names = ['a', 'a-', 'a.', 'a0', 'aa', 'b']
  const keys: string[] = []
  for (const [i, one] of names.entries()) {
    if (i % 2 === 0) keys.push(one)
    else for (const other of names) keys.push(`${one}/${other}`)
  }
  for (const key of keys) await storage.put(key, [])
  const sorted = keys.toSorted()
  assert.deepEqual(await keysOf(storage), sorted)
  for (const after of sorted) {
    const rest = (await collect(storage.list('', { after }))).map((info) => info.key)
    assert.deepEqual(rest, sorted.slice(sorted.indexOf(after) + 1))
  }
})

test('a folder that has gone is an error, not an empty store', async () => {
  const { root, storage } = await openNew()
  await storage.put('data/a', pattern(3))
  fs.renameSync(root, `${root}-away`)
  await rejects(collect(storage.list('')), 'unreachable')
  await rejects(collect(storage.list('data/')), 'unreachable')
  await rejects(storage.stat('data/a'), 'unreachable')
  await rejects(storage.delete('data/a'), 'unreachable')
  await rejects(storage.put('data/b', pattern(1)), 'unreachable')
  assert.ok(!fs.existsSync(root), 'nothing was made where the disk should be')
  fs.renameSync(`${root}-away`, root)
  assert.deepEqual(await keysOf(storage), ['data/a'])
})

test('a name that a folder has cannot become an object, nor the other way', async () => {
  const { storage } = await openNew()
  await storage.put('a/b', pattern(1))
  await assert.rejects(storage.put('a', pattern(1)))
  await assert.rejects(storage.put('a/b/c', pattern(1)))
  assert.deepEqual(await keysOf(storage), ['a/b'])
})

test('files that a dead writer left are swept after a day, fresh ones stay', async () => {
  let now = Date.now()
  const { root, storage } = await openNew(() => now)
  await storage.put('data/a', pattern(3))
  const left = join(root, 'data', '.redoubt-tmp-00ff')
  fs.writeFileSync(left, 'half')
  assert.deepEqual(await keysOf(storage), ['data/a'])
  assert.ok(fs.existsSync(left), 'its writer may be alive')
  now += 25 * 3600 * 1000
  assert.deepEqual(await keysOf(storage), ['data/a'])
  assert.ok(!fs.existsSync(left))
})

test('a failed put leaves no file behind', async () => {
  const { root, storage } = await openNew()
  async function* failing() {
    yield pattern(100_000)
    throw new Error('the source failed')
  }
  await assert.rejects(storage.putStream('data/a', failing()), /the source failed/)
  await storage.put('data/b', pattern(1), { ifAbsent: true })
  await rejects(storage.put('data/b', pattern(2), { ifAbsent: true }), 'exists')
  assert.deepEqual(fs.readdirSync(join(root, 'data')), ['b'])
})

test('a put whose file was swept under its hands fails, and may be tried again', async () => {
  const { root, storage } = await openNew()
  async function* sweeping() {
    yield pattern(10)
    for (const name of fs.readdirSync(join(root, 'data'))) fs.unlinkSync(join(root, 'data', name))
    yield pattern(10)
  }
  for (const ifAbsent of [false, true]) {
    await rejects(storage.putStream('data/a', sweeping(), { ifAbsent }), 'conflict')
  }
  assert.deepEqual(await keysOf(storage), [])
  async function* lost() {
    yield pattern(10)
    throw new Fault('missing', 'read the source: gone')
  }
  await rejects(storage.putStream('data/a', lost()), 'missing')
})

test('streams larger than any buffer pass through', async () => {
  const { storage } = await openNew()
  const bytes = pattern(5_000_000)
  await storage.putStream('a', chunks(bytes, 333_333))
  assert.ok(bytes.equals(Buffer.concat(await Array.fromAsync(storage.stream('a')))))
})
