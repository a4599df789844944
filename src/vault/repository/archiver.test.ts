import assert from 'node:assert/strict'
import { lstatSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { Fault, isFault } from '#base/faults'
import type { Prepared, TreeEntry, TreeEvent, TreeSource, TreeTarget } from '#change/tree'
import { MemStorage } from '#storage/mem'
import { Scratch } from '../../../test/support/scratch.ts'
import { archiveTree, chooseParent } from './archiver.ts'
import { compareTree } from './comparer.ts'
import { initRepository } from './open.ts'
import type { BlobSaver, Repository, Snapshot } from './repository.ts'
import { restoreTree, type RestoreOptions } from './restorer.ts'
import { decodeTree } from './tree-decoder.ts'
import { resolveTree } from './tree-loader.ts'

const { signal } = new AbortController()
const passwordCost = { n: 2, r: 1, p: 1 }
const facts = { time: '2026-01-01T00:00:00Z', paths: ['/x'], hostname: 'h' }

/** A tree in memory: directories, and files by their content; a function makes the content when it is read. */
type Plan = { readonly [name: string]: Plan | string | (() => AsyncIterable<Buffer>) }

const attributes = (name: string, mtimeNs = 1n) => ({
  name: Buffer.from(name),
  mode: 0o644,
  mtimeNs,
  atimeNs: mtimeNs,
  ctimeNs: mtimeNs,
  uid: 0,
  gid: 0,
  inode: 7n,
  device: 1n,
  links: 1,
  xattrs: [],
})

function sourceOf(plan: Plan, mtimeNs = 1n): TreeSource {
  return { walk: () => walk(plan, '', mtimeNs) }
}

async function* walk(plan: Plan, above: string, mtimeNs: bigint): AsyncGenerator<TreeEvent> {
  for (const name of Object.keys(plan).sort()) {
    const value = plan[name] ?? ''
    const path = Buffer.from(`${above}/${name}`)
    if (typeof value === 'object') {
      yield { kind: 'enter', path, entry: { ...attributes(name, mtimeNs), kind: 'dir' } }
      yield* walk(value, path.toString(), mtimeNs)
      yield { kind: 'leave' }
    } else {
      const read = typeof value === 'function' ? value : () => once(value)
      const sizeBytes = BigInt(typeof value === 'string' ? value.length : 1)
      const entry: TreeEntry = { ...attributes(name, mtimeNs), kind: 'file', sizeBytes }
      yield { kind: 'node', path, entry, content: { kind: 'stream', read } }
    }
  }
}

async function* once(text: string): AsyncGenerator<Buffer> {
  if (text !== '') yield Buffer.from(text)
}

async function openMemory(storage = new MemStorage()): Promise<Repository> {
  return initRepository(storage, 'secret', { signal, passwordCost })
}

async function archive(repository: Repository, source: TreeSource, more = {}) {
  return archiveTree(repository, source, { signal, workers: 1, facts, ...more })
}

/** A target in memory that notes what is done to it. */
class MemoryTarget implements TreeTarget {
  readonly files = new Map<string, Buffer>()
  readonly calls: string[] = []
  present: Prepared = 'new'

  async prepare(path: Buffer, entry: TreeEntry): Promise<Prepared> {
    this.calls.push(`prepare ${path.toString()}`)
    if (entry.kind !== 'file') return 'new'
    const old = this.files.get(path.toString())
    const bytes = Buffer.alloc(Number(entry.sizeBytes))
    old?.copy(bytes)
    this.files.set(path.toString(), bytes)
    return old ? 'present' : 'new'
  }
  async link(path: Buffer, existing: Buffer): Promise<void> {
    this.calls.push(`link ${path.toString()} ${existing.toString()}`)
  }
  async read(path: Buffer, offset: number, size: number): Promise<Buffer> {
    return this.#bytes(path).subarray(offset, offset + size)
  }
  async write(path: Buffer, offset: number, bytes: Uint8Array): Promise<void> {
    this.#bytes(path).set(bytes, offset)
  }
  async zero(path: Buffer, offset: number, size: number): Promise<void> {
    this.#bytes(path).fill(0, offset, offset + size)
  }
  async finish(path: Buffer): Promise<void> {
    this.calls.push(`finish ${path.toString()}`)
  }
  async spoil(path: Buffer): Promise<void> {
    this.calls.push(`spoil ${path.toString()}`)
  }
  async retain(): Promise<Buffer[]> {
    return []
  }
  async flush(): Promise<void> {
    this.calls.push('flush')
  }

  #bytes(path: Buffer): Buffer {
    const bytes = this.files.get(path.toString())
    assert.ok(bytes)
    return bytes
  }
}

async function restore(
  repository: Repository,
  tree: string,
  target: TreeTarget,
  more: Partial<RestoreOptions> = {},
) {
  return restoreTree(repository, tree, target, { signal, ...more })
}

const plan: Plan = {
  a: { b: { c: 'deep' }, empty: {}, f: 'eff' },
  big: 'x'.repeat(3_000_000),
  none: '',
  z: 'last',
}

test('what was archived is restored, children before their parents at the end', async () => {
  await using repository = await openMemory()
  const { tree, summary, snapshot } = await archive(repository, sourceOf(plan))
  assert.equal(summary.files_new, 5)
  assert.equal(summary.dirs_new, 3)
  assert.deepEqual(await repository.snapshots({ signal }), [snapshot])
  const target = new MemoryTarget()
  const restored = await restore(repository, tree, target, { verify: true })
  assert.equal(restored.files, 5)
  assert.equal(target.files.get('a/b/c')?.toString(), 'deep')
  assert.equal(target.files.get('big')?.toString(), plan['big'])
  const { calls } = target
  const before = (first: string, second: string) =>
    assert.ok(
      calls.indexOf(first) >= 0 && calls.indexOf(first) < calls.indexOf(second),
      calls.join(),
    )
  before('prepare a', 'prepare a/b')
  before('prepare a/b', 'prepare a/b/c')
  before('finish a/b/c', 'finish a/b')
  before('finish a/b', 'finish a')
  before('finish a/f', 'finish a')
  assert.equal(calls.at(-1), 'flush')
})

test('the tree does not depend on the order in which files are saved', async () => {
  await using repository = await openMemory()
  const names = Array.from({ length: 60 }, (_, i) => `f${String(i).padStart(2, '0')}`)
  const expected = await archive(
    repository,
    sourceOf(Object.fromEntries(names.map((name) => [name, 'x']))),
  )
  // The first ones end last: each waits until all others were begun.
  let begun = 0
  const begin = Promise.withResolvers<void>()
  async function* late(): AsyncGenerator<Buffer> {
    begun += 1
    if (begun === 3) begin.resolve()
    await begin.promise
    yield Buffer.from('x')
  }
  const mixed = Object.fromEntries(names.map((name, i) => [name, i < 3 ? late : 'x']))
  assert.equal((await archive(repository, sourceOf(mixed))).tree, expected.tree)
})

test('a file that cannot be read is left out, told, and the others saved', async () => {
  await using repository = await openMemory()
  // oxlint-disable-next-line require-yield
  async function* broken(): AsyncGenerator<Buffer> {
    throw new Fault('io', 'read /b: EIO')
  }
  // oxlint-disable-next-line require-yield
  async function* vanished(): AsyncGenerator<Buffer> {
    throw new Fault('missing', 'read /c: ENOENT')
  }
  const told: string[] = []
  const { tree, unreadCount, summary } = await archive(
    repository,
    sourceOf({ a: 'a', b: broken, c: vanished, d: 'd' }),
    {
      onTrouble: ({ path, said }: { path: string; said: string }) => told.push(`${path}: ${said}`),
    },
  )
  assert.equal(unreadCount, 1)
  assert.deepEqual(told, ['/b: read /b: EIO'])
  assert.equal(summary.files_new, 2)
  const target = new MemoryTarget()
  await restore(repository, tree, target)
  assert.deepEqual([...target.files.keys()], ['a', 'd'])
})

test('a file that is not what it was when it was looked at is saved, and told', async () => {
  using scratch = new Scratch('archiver')
  await using repository = await openMemory()
  const path = Buffer.from(scratch.join('f'))
  writeFileSync(path, Buffer.alloc(100_000, 1))
  const stats = lstatSync(path, { bigint: true })
  const entryOf = (mtimeNs: bigint, sizeBytes: bigint): TreeEntry => ({
    ...attributes('f', mtimeNs),
    ctimeNs: stats.ctimeNs,
    inode: stats.ino,
    kind: 'file',
    sizeBytes,
  })
  const run = async (entry: TreeEntry) => {
    async function* walkOne(): AsyncGenerator<TreeEvent> {
      yield { kind: 'node', path, entry, content: { kind: 'path', path } }
    }
    const { changedCount, summary } = await archive(repository, { walk: walkOne })
    return [changedCount, summary.total_bytes_processed]
  }
  assert.deepEqual(await run(entryOf(stats.mtimeNs, 100_000n)), [0, 100_000])
  assert.deepEqual(await run(entryOf(stats.mtimeNs - 1n, 100_000n)), [1, 100_000])
  assert.deepEqual(await run(entryOf(stats.mtimeNs, 5n)), [1, 100_000])
})

test('a store that fails ends the backup with its own fault, and no snapshot', async () => {
  const storage = new MemStorage()
  await using repository = await openMemory(storage)
  for (const code of ['unreachable', 'io', 'full', 'denied'] as const) {
    const put = storage.put.bind(storage)
    storage.put = async (key, ...rest) => {
      if (key.startsWith('data/')) throw new Fault(code, `put ${key}`)
      return put(key, ...rest)
    }
    const source = sourceOf({ a: code, b: { c: `${code}!` } })
    await assert.rejects(archive(repository, source), (error) => isFault(error, code), code)
    storage.put = put
  }
  assert.deepEqual(await repository.snapshots({ signal }), [])
})

test('a file as the parent has it is not read; one that changed, or whose chunks are gone, is', async () => {
  await using repository = await openMemory()
  const old = await archive(repository, sourceOf({ same: 's', other: 'o', gone: 'g' }))
  assert.ok(old.snapshot)
  const read: string[] = []
  const reading = (name: string, text: string) =>
    async function* () {
      read.push(name)
      yield Buffer.from(text)
    }
  const has = repository.has.bind(repository)
  const [lost] = (await archive(repository, sourceOf({ x: 'g' }))).troubles
  assert.equal(lost, undefined)
  const gone = 'cd0aa9856147b6c5b4ff2b7dfee5da20aa38253099ef1b4a64aced233c9afe29'
  assert.ok(has('data', gone))
  repository.has = (type, id) => id !== gone && has(type, id)
  const plan = {
    gone: reading('gone', 'g'),
    other: reading('other', 'O'),
    same: reading('same', 's'),
  }
  const parent = { ...old.snapshot, time: '2026-06-01T00:00:00Z' }
  await archive(repository, sourceOf(plan), { parent })
  assert.deepEqual(read, ['gone'])
  read.length = 0
  repository.has = has
  const { summary } = await archive(repository, sourceOf(plan, 2n), { parent })
  assert.deepEqual(read.sort(), ['gone', 'other', 'same'])
  assert.deepEqual([summary.files_new, summary.files_changed], [0, 3])
  // A parent that began when the file was last changed may have missed that change.
  read.length = 0
  await archive(repository, sourceOf(plan), { parent: { ...parent, time: '1970-01-01T00:00:00Z' } })
  assert.equal(read.length, 3)
})

test('a tree in which nothing changed stays as its writer wrote it, times in another zone and all', async () => {
  await using repository = await openMemory()
  const plan: Plan = { a: 'x', b: { c: 'y', d: '' }, e: '' }
  const { tree: ours } = await archive(repository, sourceOf(plan))
  const foreign = async (saver: BlobSaver, id: string): Promise<string> => {
    const nodes = JSON.parse((await repository.loadBlob('tree', id, { signal })).toString()) as {
      nodes: { subtree?: string }[]
    }
    for (const node of nodes.nodes) {
      if (node.subtree) node.subtree = await foreign(saver, node.subtree)
    }
    const text = JSON.stringify(nodes).replaceAll(
      /1970-01-01T00:00:00([.\d]*)Z/g,
      (_, fraction) => {
        return `1970-01-01T02:00:00${fraction}+02:00`
      },
    )
    return saver.saveBlob('tree', Buffer.from(`${text}\n`))
  }
  await using saver = await repository.openSaver({ signal, workers: 1 })
  const tree = await foreign(saver, ours)
  await saver.finish()
  assert.notEqual(tree, ours)
  const parent: Snapshot = { id: 'p', tree, ...facts, time: '2026-06-01T00:00:00Z' }
  const same = await archive(repository, sourceOf(plan), { parent })
  assert.equal(same.tree, tree)
  assert.deepEqual([same.summary.files_unmodified, same.summary.dirs_unmodified], [4, 1])

  // What stands beside a node that changed is taken over too.
  const more = await archive(repository, sourceOf({ ...plan, e: 'z' }), { parent })
  const text = (await repository.loadBlob('tree', more.tree, { signal })).toString()
  assert.equal(text.match(/\+02:00/g)?.length, 6)
  assert.equal([...decodeTree(Buffer.from(text), 'tree')].length, 3)
  assert.equal(more.summary.files_unmodified, 3)
})

test('a backup that is aborted ends with the reason', async () => {
  await using repository = await openMemory()
  const abort = new AbortController()
  async function* endless(): AsyncGenerator<Buffer> {
    yield Buffer.from('x')
    abort.abort(new Error('enough'))
    yield Buffer.from('y')
  }
  const source = sourceOf({ a: endless, b: 'b' })
  await assert.rejects(archive(repository, source, { signal: abort.signal }), /enough/)
})

test('only chunks that differ are fetched for a file that is there', async () => {
  await using repository = await openMemory()
  const { tree } = await archive(repository, sourceOf(plan))
  const target = new MemoryTarget()
  await restore(repository, tree, target)
  target.files.get('a/f')?.fill('?')
  const dry = await restore(repository, tree, target, { dryRun: true })
  const again = await restore(repository, tree, target)
  assert.equal(again.writtenBytes, 3n)
  assert.equal(dry.writtenBytes, 3n)
  assert.equal(again.keptBytes, 3_000_008n)
  assert.equal(target.files.get('a/f')?.toString(), 'eff')
})

test('map moves nodes and leaves others out, select makes only what leads to something', async () => {
  await using repository = await openMemory()
  const { tree } = await archive(repository, sourceOf(plan))
  const moved = new MemoryTarget()
  await restore(repository, tree, moved, {
    map: (path) => {
      const text = path.toString()
      if (text.startsWith('a/b')) return undefined
      return Buffer.from(text === 'z' ? 'a/zz' : text)
    },
  })
  assert.deepEqual([...moved.files.keys()].sort(), ['a/f', 'a/zz', 'big', 'none'])
  const chosen = new MemoryTarget()
  await restore(repository, tree, chosen, {
    select: (path) => ({ selected: path.toString().endsWith('/c'), below: true }),
  })
  assert.deepEqual(
    chosen.calls.filter((call) => call.startsWith('prepare')),
    ['prepare a', 'prepare a/b', 'prepare a/b/c'],
  )
})

test('resolveTree() finds a directory, and says what is none', async () => {
  await using repository = await openMemory()
  const { tree } = await archive(repository, sourceOf(plan))
  const target = new MemoryTarget()
  await restore(repository, await resolveTree(repository, tree, '/a/b', { signal }), target)
  assert.deepEqual([...target.files.keys()], ['c'])
  await assert.rejects(resolveTree(repository, tree, '/a/x', { signal }), (error) =>
    isFault(error, 'missing'),
  )
  await assert.rejects(resolveTree(repository, tree, '/a/f', { signal }), (error) =>
    isFault(error, 'usage'),
  )
})

test('compareTree() keeps two walks in step, whatever is missing at whichever end', async () => {
  await using repository = await openMemory()
  const stored: Plan = { b: { x: '1', y: {} }, d: { q: { r: '' } }, e: 'e', g: {} }
  const { tree } = await archive(repository, sourceOf(stored))
  const found: Plan = { a: { b: { c: '' } }, b: { y: {}, z: '' }, e: {}, g: { h: '' }, i: 'i' }
  const lines: string[] = []
  for await (const { kind, path } of compareTree(repository, tree, sourceOf(found), { signal }))
    lines.push(`${kind} ${path.toString()}`)
  assert.deepEqual(lines, [
    'extra a',
    'missing b/x',
    'extra b/z',
    'missing d',
    'type e',
    'extra g/h',
    'extra i',
  ])
})

test('chooseParent() takes the latest of the same host and paths, none from the future', () => {
  const made = (id: string, time: string, more: Partial<Snapshot> = {}): Snapshot => ({
    id,
    time,
    tree: '',
    paths: ['/a', '/b'],
    hostname: 'h',
    ...more,
  })
  const snapshots = [
    made('1', '2026-01-01T00:00:00Z'),
    made('2', '2026-01-03T01:00:00+02:00', { paths: ['/b', '/a'] }),
    made('3', '2026-01-03T00:00:00Z', { hostname: 'other' }),
    made('4', '2026-01-04T00:00:00Z', { paths: ['/a'] }),
    made('5', '2027-01-01T00:00:00Z'),
  ]
  const wanted = { paths: ['/a', '/b'], hostname: 'h', time: '2026-02-01T00:00:00Z' }
  assert.equal(chooseParent(snapshots, wanted)?.id, '2')
  assert.equal(chooseParent(snapshots, { ...wanted, paths: ['/c'] }), undefined)
})
