import assert from 'node:assert/strict'
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { isFault } from '#base/faults'
import type { TreeEntry } from '#change/tree'
import { type LayOptions, openTarget } from './lay.ts'

const signal = new AbortController().signal
const root = process.geteuid?.() === 0

function scratch(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'redoubt-lay-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

const attributes = {
  name: Buffer.from('x'),
  mode: 0o640,
  mtimeNs: 1_700_000_000_123_456_789n,
  atimeNs: 1_600_000_000_987_654_321n,
  ctimeNs: 0n,
  uid: process.geteuid?.() ?? 0,
  gid: process.getegid?.() ?? 0,
  inode: 1n,
  device: 1n,
  links: 1,
  xattrs: [],
}
const fileOf = (sizeBytes: number, more: Partial<TreeEntry> = {}): TreeEntry =>
  ({ ...attributes, kind: 'file', sizeBytes: BigInt(sizeBytes), ...more }) as TreeEntry
const directory: TreeEntry = { ...attributes, mode: 0o750, kind: 'dir' }
const at = (path: string) => Buffer.from(path)

async function lay(target: string, options: LayOptions = {}) {
  return openTarget(target, options)
}

test('a file gets its bytes, mode, times in nanoseconds and attributes', async (t) => {
  const place = scratch(t)
  await using target = await lay(place)
  const xattrs = [{ name: 'user.note', value: Buffer.from([0, 255, 1]) }]
  const entry = fileOf(6, { mode: 0o4751, xattrs })
  assert.equal(await target.prepare(at('f'), entry, { signal }), 'new')
  await target.write(at('f'), 3, Buffer.from('def'))
  await target.write(at('f'), 0, Buffer.from('abc'))
  await target.finish(at('f'), entry)
  await target.flush()
  const stats = lstatSync(join(place, 'f'), { bigint: true })
  assert.equal(readFileSync(join(place, 'f'), 'utf8'), 'abcdef')
  assert.equal(stats.mode & 0o7777n, 0o4751n)
  assert.equal(stats.mtimeNs, entry.mtimeNs)
  assert.equal(stats.atimeNs, entry.atimeNs)
})

test('a large hole stays a hole, and so do zeroes at the ends of what is written', async (t) => {
  const place = scratch(t)
  await using target = await lay(place)
  const size = 100e9
  assert.equal(await target.prepare(at('s'), fileOf(size), { signal }), 'new')
  await target.zero(at('s'), 0, 50e9)
  const chunk = Buffer.alloc(1 << 20)
  chunk.write('here', 512 * 1024)
  await target.write(at('s'), 1 << 30, chunk)
  await target.finish(at('s'), fileOf(size))
  const stats = statSync(join(place, 's'))
  assert.equal(stats.size, size)
  assert.ok(stats.blocks * 512 <= 16 * 1024, `${stats.blocks} blocks`)
})

test('without sparse, zeroes are written', async (t) => {
  const place = scratch(t)
  await using target = await lay(place, { sparse: false })
  await target.prepare(at('s'), fileOf(1 << 20), { signal })
  await target.zero(at('s'), 0, 1 << 20)
  await target.finish(at('s'), fileOf(1 << 20))
  assert.ok(statSync(join(place, 's')).blocks * 512 >= 1 << 20)
})

test('zeroes in a file that was there before remove what it held', async (t) => {
  const place = scratch(t)
  writeFileSync(join(place, 's'), Buffer.alloc(1 << 20, 7))
  await using target = await lay(place, { overwrite: 'always' })
  assert.equal(await target.prepare(at('s'), fileOf(1 << 20), { signal }), 'present')
  await target.zero(at('s'), 0, 1 << 20)
  await target.finish(at('s'), fileOf(1 << 20))
  assert.deepEqual(readFileSync(join(place, 's')), Buffer.alloc(1 << 20))
})

test('a target that is not empty is refused unless told', async (t) => {
  const place = scratch(t)
  writeFileSync(join(place, 'old'), 'old')
  await assert.rejects(lay(place), (error) => isFault(error, 'refused'))
  assert.deepEqual(readdirSync(place), ['old'])
})

test('each way to overwrite does what it says', async (t) => {
  const entry = fileOf(3, { mtimeNs: 1_700_000_000_000_000_000n })
  const cases = [
    ['always', 1_700_000_000, 'present'],
    ['if-changed', 1_700_000_000, 'same'],
    ['if-changed', 1_600_000_000, 'present'],
    ['if-newer', 1_600_000_000, 'present'],
    ['if-newer', 1_800_000_000, 'kept'],
    ['never', 1_600_000_000, 'kept'],
  ] as const
  for (const [overwrite, mtime, expected] of cases) {
    const place = scratch(t)
    writeFileSync(join(place, 'f'), 'old')
    utimesSync(join(place, 'f'), mtime, mtime)
    await using target = await lay(place, { overwrite })
    assert.equal(await target.prepare(at('f'), entry, { signal }), expected, overwrite)
  }
})

test('a file with other names is made anew, so that they keep their bytes', async (t) => {
  const place = scratch(t)
  writeFileSync(join(place, 'f'), 'old')
  linkSync(join(place, 'f'), join(place, 'other'))
  await using target = await lay(place, { overwrite: 'always' })
  assert.equal(await target.prepare(at('f'), fileOf(3), { signal }), 'new')
  await target.write(at('f'), 0, at('new'))
  await target.finish(at('f'), fileOf(3))
  assert.equal(readFileSync(join(place, 'other'), 'utf8'), 'old')
  assert.equal(readFileSync(join(place, 'f'), 'utf8'), 'new')
})

test('a hard link names the same file', async (t) => {
  const place = scratch(t)
  await using target = await lay(place)
  await target.prepare(at('f'), fileOf(1), { signal })
  await target.link(at('g'), at('f'))
  assert.equal(statSync(join(place, 'g')).ino, statSync(join(place, 'f')).ino)
  await target.link(at('g'), at('f'))
})

test('a directory swapped for a symlink in mid-restore diverts nothing', async (t) => {
  const place = scratch(t)
  const outside = scratch(t)
  writeFileSync(join(outside, 'f'), 'precious')
  await using target = await lay(place)
  await target.prepare(at('d'), directory, { signal })
  await target.prepare(at('d/f'), fileOf(3), { signal })
  renameSync(join(place, 'd'), join(place, 'moved'))
  symlinkSync(outside, join(place, 'd'))
  // What is open goes to the directory that was made, wherever it is now.
  await target.write(at('d/f'), 0, at('bad'))
  await target.finish(at('d/f'), fileOf(3))
  await target.prepare(at('d/g'), fileOf(0), { signal })
  assert.equal(readFileSync(join(outside, 'f'), 'utf8'), 'precious')
  assert.deepEqual(readdirSync(outside), ['f'])
  assert.deepEqual(readdirSync(join(place, 'moved')).sort(), ['f', 'g'])
})

test('a symlink in the way of a path is refused', async (t) => {
  const place = scratch(t)
  const outside = scratch(t)
  symlinkSync(outside, join(place, 'd'))
  await using target = await lay(place, { overwrite: 'always' })
  await assert.rejects(target.prepare(at('d/f'), fileOf(0), { signal }), (error) =>
    isFault(error, 'refused'),
  )
  assert.deepEqual(readdirSync(outside), [])
  // Told to make the directory itself, it replaces the symlink, not what that names.
  assert.equal(await target.prepare(at('d'), directory, { signal }), 'new')
  await target.prepare(at('d/f'), fileOf(0), { signal })
  assert.deepEqual(readdirSync(outside), [])
})

test('a file swapped for a symlink is not written through', async (t) => {
  const place = scratch(t)
  const outside = scratch(t)
  writeFileSync(join(outside, 'f'), 'precious')
  await using target = await lay(place)
  await target.prepare(at('f'), fileOf(3), { signal })
  await target.finish(at('f'), fileOf(3))
  rmSync(join(place, 'f'))
  symlinkSync(join(outside, 'f'), join(place, 'f'))
  await assert.rejects(target.write(at('f'), 0, at('bad')), (error) => isFault(error))
  await assert.rejects(target.finish(at('f'), fileOf(3)), /ELOOP/)
  assert.equal(readFileSync(join(outside, 'f'), 'utf8'), 'precious')
})

test('a directory where a file should be is not removed', async (t) => {
  const place = scratch(t)
  mkdirSync(join(place, 'f'))
  await using target = await lay(place, { overwrite: 'always' })
  await assert.rejects(target.prepare(at('f'), fileOf(0), { signal }), (error) =>
    isFault(error, 'exists'),
  )
})

test('a symlink gets its own times, its target none', async (t) => {
  const place = scratch(t)
  writeFileSync(join(place, 'aim'), '')
  utimesSync(join(place, 'aim'), 1, 1)
  await using target = await lay(place, { overwrite: 'always' })
  const entry: TreeEntry = { ...attributes, kind: 'symlink', target: at('aim') }
  await target.prepare(at('l'), entry, { signal })
  await target.finish(at('l'), entry)
  assert.equal(readlinkSync(join(place, 'l')), 'aim')
  assert.equal(lstatSync(join(place, 'l'), { bigint: true }).mtimeNs, entry.mtimeNs)
  assert.equal(statSync(join(place, 'aim')).mtimeMs, 1000)
})

test('fifos, sockets and devices are made as what they are', async (t) => {
  const place = scratch(t)
  await using target = await lay(place)
  const nodes: TreeEntry[] = [
    { ...attributes, kind: 'fifo' },
    { ...attributes, kind: 'socket' },
    ...(root
      ? ([
          { ...attributes, kind: 'dev', rdev: 0x0701n },
          { ...attributes, kind: 'chardev', rdev: 0x0103n, uid: 1, gid: 2 },
        ] as const)
      : []),
  ]
  for (const entry of nodes) {
    await target.prepare(at(entry.kind), entry, { signal })
    await target.finish(at(entry.kind), entry)
    const stats = lstatSync(join(place, entry.kind), { bigint: true })
    assert.equal(stats.mode & 0o7777n, 0o640n)
    assert.equal(stats.mtimeNs, entry.mtimeNs)
    assert.equal(Number(stats.uid), entry.uid)
    if (entry.kind === 'dev' || entry.kind === 'chardev') assert.equal(stats.rdev, entry.rdev)
  }
  assert.ok(lstatSync(join(place, 'fifo')).isFIFO())
  assert.ok(lstatSync(join(place, 'socket')).isSocket())
})

test('attributes that are not in the tree go, the others come', async (t) => {
  const place = scratch(t)
  await using first = await lay(place)
  const xattr = (name: string, value: string) => ({ name, value: Buffer.from(value) })
  const before = fileOf(0, { xattrs: [xattr('user.old', '1'), xattr('user.same', '2')] })
  await first.prepare(at('f'), before, { signal })
  await first.finish(at('f'), before)
  await using second = await lay(place, { overwrite: 'always' })
  const after = fileOf(0, { xattrs: [xattr('user.same', '2'), xattr('user.new', '')] })
  await second.prepare(at('f'), after, { signal })
  await second.finish(at('f'), after)
  const { loadNative } = await import('./native.ts')
  const found = loadNative().readXattrs(at(join(place, 'f')))
  assert.deepEqual(found.map(({ name }) => name).sort(), ['user.new', 'user.same'])
})

test('a file that could not be had is moved out of the way', async (t) => {
  const place = scratch(t)
  writeFileSync(join(place, 'f.damaged'), 'earlier')
  await using target = await lay(place, { overwrite: 'always' })
  await target.prepare(at('f'), fileOf(3), { signal })
  await target.spoil(at('f'))
  assert.deepEqual(readdirSync(place).sort(), ['f.damaged', 'f.damaged-1'])
})

test('retain() removes what is not wanted, and follows no symlink', async (t) => {
  const place = scratch(t)
  const outside = scratch(t)
  writeFileSync(join(outside, 'precious'), '')
  mkdirSync(join(place, 'd/deep'), { recursive: true })
  symlinkSync(outside, join(place, 'd/deep/link'))
  writeFileSync(join(place, 'keep'), '')
  await using target = await lay(place, { overwrite: 'always' })
  const removed = await target.retain(at(''), (name) => name.toString() === 'keep')
  assert.deepEqual(removed.map(String), ['d'])
  assert.deepEqual(readdirSync(place), ['keep'])
  assert.ok(existsSync(join(outside, 'precious')))
})

test('a dry run changes nothing', async (t) => {
  const place = scratch(t)
  writeFileSync(join(place, 'f'), 'old')
  chmodSync(join(place, 'f'), 0o444)
  await using target = await lay(place, { overwrite: 'always', dryRun: true })
  assert.equal(await target.prepare(at('f'), fileOf(9), { signal }), 'present')
  assert.equal(await target.prepare(at('d'), directory, { signal }), 'new')
  assert.equal(await target.prepare(at('d/g'), fileOf(9), { signal }), 'new')
  assert.equal((await target.read(at('f'), 0, 9)).toString(), 'old')
  await target.write(at('f'), 0, at('new'))
  await target.finish(at('f'), fileOf(9))
  assert.deepEqual(await target.retain(at(''), () => false).then((all) => all.map(String)), ['f'])
  assert.deepEqual(readdirSync(place), ['f'])
  assert.equal(readFileSync(join(place, 'f'), 'utf8'), 'old')
})

test('names are bytes', async (t) => {
  const place = scratch(t)
  await using target = await lay(place)
  const name = Buffer.from([0x66, 0xff, 0x0a, 0x22, 0xc3])
  await target.prepare(name, fileOf(0), { signal })
  await target.finish(name, fileOf(0))
  assert.deepEqual(readdirSync(place, { encoding: 'buffer' }), [name])
})

test('nothing inherits an access list that the tree does not have', async (t) => {
  const place = scratch(t)
  const { loadNative } = await import('./native.ts')
  mkdirSync(join(place, 'd'))
  loadNative().setXattr(at(join(place, 'd')), { name: 'system.posix_acl_default', value: acl })
  await using target = await lay(place, { overwrite: 'always' })
  assert.equal(await target.prepare(at('d'), directory, { signal }), 'present')
  assert.equal(await target.prepare(at('d/e'), directory, { signal }), 'new')
  for (const path of ['d/f', 'd/e/f']) {
    await target.prepare(at(path), fileOf(0), { signal })
    await target.finish(at(path), fileOf(0))
    assert.deepEqual(loadNative().readXattrs(at(join(place, path))), [], path)
  }
  for (const path of ['d/e', 'd']) {
    await target.finish(at(path), directory)
    assert.deepEqual(loadNative().readXattrs(at(join(place, path))), [], path)
    assert.equal(statSync(join(place, path)).mode & 0o7777, 0o750)
  }
})

/** A default access list that grants user 1 all: acl_ea.h, version 2, then tag, permissions and id of each entry. */
const acl = Buffer.from(
  [
    '02000000',
    '01000700ffffffff',
    '0200070001000000',
    '04000500ffffffff',
    '10000700ffffffff',
    '20000500ffffffff',
  ].join(''),
  'hex',
)
