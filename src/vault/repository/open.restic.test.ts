import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { openFsStorage } from '#storage/fs'
import { Scratch } from '../../../test/support/scratch.ts'
import { Restic, type ResticVersion } from '../../../test/support/servers/restic.ts'
import { initRepository, openRepository } from './open.ts'
import type { Repository } from './repository.ts'
import { encodeTree, type TreeNode } from './tree-codec.ts'
import { decodeTree } from './tree-decoder.ts'

const { signal } = new AbortController()
const password = 'correct horse'
const versions: readonly ResticVersion[] = ['0.14', '0.19']

/** Bytes that compress, bytes that do not, zeros, repetitions: `size` of each. */
function mixed(size: number): Buffer {
  const text = Buffer.from(
    Array.from({ length: size / 40 }, (_, i) => `${i};order ${(i * 7919) % 1000};paid;Berlin`).join(
      '\n',
    ),
  )
  const random = randomBytes(size)
  return Buffer.concat([
    text,
    random,
    Buffer.alloc(size),
    text.subarray(1000),
    random.subarray(333),
  ])
}

/** The content of a file of a snapshot's tree, by the names on the way to it. */
async function readFile(repository: Repository, tree: string, names: readonly string[]) {
  const [name, ...rest] = names
  const bytes = await repository.loadBlob('tree', tree, { signal })
  const node = [...decodeTree(bytes, 'tree')].find((other) => other.name.toString() === name)
  assert.ok(node, `${name} is in the tree`)
  if (rest.length > 0) return readFile(repository, node.subtree ?? '', rest)
  const found = new Map<string, Buffer>()
  await repository.loadBlobs(node.content ?? [], { signal }, async (id, plain) => {
    found.set(id, plain)
  })
  return Buffer.concat((node.content ?? []).map((id) => found.get(id) ?? Buffer.alloc(0)))
}

const cases: readonly { version: ResticVersion; format: '1' | '2'; compression?: string }[] = [
  { version: '0.14', format: '1' },
  { version: '0.14', format: '2', compression: 'auto' },
  { version: '0.19', format: '1' },
  ...['off', 'fastest', 'auto', 'better', 'max'].map(
    (compression) => ({ version: '0.19', format: '2', compression }) as const,
  ),
]

for (const { version, format, compression } of cases) {
  test(`reads what restic ${version} wrote: format ${format}, compression ${compression}`, async () => {
    using scratch = new Scratch('repository')
    const path = scratch.join('repo')
    const restic = new Restic({ repository: path, password, version })
    await restic.run(['init', '--repository-version', format])
    const content = mixed(1_000_000)
    mkdirSync(scratch.join('source/sub'), { recursive: true })
    writeFileSync(scratch.join('source/sub/file'), content)
    const mode = compression ? ['--compression', compression] : []
    await restic.run([...mode, 'backup', '.'], { cwd: scratch.join('source') })

    await using storage = await openFsStorage(path)
    await using repository = await openRepository(storage, password, { signal })
    assert.equal(repository.version, Number(format))
    const [snapshot] = await repository.snapshots({ signal })
    assert.ok(snapshot)
    await repository.loadIndex({ signal })
    const ours = await readFile(repository, snapshot.tree, ['sub', 'file'])
    assert.ok(ours.equals(content))
    for (const blob of repository.blobs()) await repository.loadBlob(blob.type, blob.id, { signal })
  })
}

const attributes = { mode: 0o644, uid: 0, gid: 0, inode: 1n, device: 1n, links: 1, xattrs: [] }
const plainNode = { ...attributes, mtimeNs: 1n, atimeNs: 1n, ctimeNs: 1n }

function fileNode(name: string, sizeBytes: number, content: readonly string[]): TreeNode {
  return {
    ...plainNode,
    name: Buffer.from(name),
    kind: 'file',
    sizeBytes: BigInt(sizeBytes),
    content,
  }
}

for (const compression of ['off', 'fastest', 'auto', 'better', 'max'] as const) {
  test(`restic accepts and restores what we wrote: compression ${compression}`, async () => {
    using scratch = new Scratch('repository')
    const path = scratch.join('repo')
    await using storage = await openFsStorage(path, { create: true })
    await using repository = await initRepository(storage, password, { signal })
    writeFileSync(scratch.join('b'), mixed(4_000_000))
    const contents = new Map([
      ['a', Buffer.alloc(0)],
      ['b', readFileSync(scratch.join('b'))],
      ['c', Buffer.from('small')],
    ])
    await using saver = await repository.openSaver({ signal, compression })
    const nodes: TreeNode[] = []
    for (const [name, bytes] of contents) {
      const { blobs, sizeBytes } = await saver.saveContent(
        name === 'b'
          ? { kind: 'path', path: Buffer.from(scratch.join('b')) }
          : {
              kind: 'stream',
              read: async function* () {
                yield bytes
              },
            },
      )
      assert.equal(sizeBytes, BigInt(bytes.length))
      nodes.push(fileNode(name, bytes.length, blobs))
    }
    const tree = await saver.saveBlob('tree', encodeTree(nodes))
    await saver.finish()
    const time = new Date().toISOString()
    await repository.saveSnapshot({ time, tree, paths: ['/data'], tags: ['x'] }, { signal })
    for (const version of versions) {
      const restic = new Restic({ repository: path, password, version })
      await restic.run(['check', '--read-data'])
      const target = scratch.join(`restored-${version}`)
      await restic.run(['restore', 'latest', '--target', target])
      for (const [name, bytes] of contents) {
        assert.ok(readFileSync(`${target}/${name}`).equals(bytes), name)
      }
    }
  })
}

test('our chunks are those of restic, byte for byte', async () => {
  using scratch = new Scratch('repository')
  const path = scratch.join('repo')
  const restic = new Restic({ repository: path, password })
  await restic.run(['init'])
  mkdirSync(scratch.join('source'))
  writeFileSync(scratch.join('source/file'), mixed(8_000_000))
  await restic.run(['backup', '.'], { cwd: scratch.join('source') })
  await using storage = await openFsStorage(path)
  await using repository = await openRepository(storage, password, { signal })
  await repository.loadIndex({ signal })
  await using saver = await repository.openSaver({ signal })
  await saver.saveContent({ kind: 'path', path: Buffer.from(scratch.join('source/file')) })
  assert.equal((await saver.finish()).dataBlobs, 0)
})

test('restic opens with every password that we set, and we with those of restic', async () => {
  using scratch = new Scratch('repository')
  const path = scratch.join('repo')
  await using storage = await openFsStorage(path, { create: true })
  await using repository = await initRepository(storage, password, { signal })
  await repository.addKey('päßwort 2', { signal })
  for (const version of versions) {
    await new Restic({ repository: path, password: 'päßwort 2', version }).run(['cat', 'config'])
  }
  writeFileSync(scratch.join('new'), 'third\n')
  const restic = new Restic({ repository: path, password })
  await restic.run(['key', 'add', '--new-password-file', scratch.join('new')])
  await using other = await openRepository(storage, 'third', { signal })
  assert.equal(other.id, repository.id)
  assert.equal((await other.listKeys({ signal })).length, 3)
})
