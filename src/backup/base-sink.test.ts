import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { createProgress } from '#base/progress'
import type { BaseEntry } from '#engines'
import { MemStorage } from '#storage/mem'
import { blockBytes } from '#vault/repository/limits'
import type { TreeNode } from '#vault/repository/tree-codec'
import { readContent, readNodes } from '#vault/repository/tree-reader'
import { makeRepository } from '../../test/support/repositories.ts'
import { VaultSink } from './base-sink.ts'

const signal = AbortSignal.timeout(600_000)
const entry = (sizeBytes: number): BaseEntry<'file'> => ({
  kind: 'file',
  sizeBytes: BigInt(sizeBytes),
  mode: 0o600,
  mtimeNs: 0n,
  atimeNs: 0n,
  ctimeNs: 0n,
  uid: 0,
  gid: 0,
  inode: 0n,
  device: 0n,
  links: 1,
  xattrs: [],
})

test('a patched file is whole, keeps its blocks, and is cut as if it had come whole', async () => {
  await using repository = await makeRepository(new MemStorage())
  const progress = createProgress('base')
  const take = async (
    parent: ReadonlyMap<string, TreeNode> | undefined,
    work: (sink: VaultSink) => Promise<void>,
  ) => {
    await using saver = await repository.openSaver({ signal, workers: 1 })
    const sink = new VaultSink({ repository, saver, progress, signal, parent })
    await work(sink)
    const tree = await sink.save()
    const { dataBlobs } = await saver.finish()
    const nodes = new Map<string, TreeNode>()
    for await (const { path, node } of readNodes(repository, tree, { signal })) {
      nodes.set(path, node)
    }
    const node = nodes.get('base/5/1')
    assert.ok(node)
    const bytes = Buffer.concat(await Array.fromAsync(readContent(repository, node, { signal })))
    return { nodes, dataBlobs, bytes, blobs: node.content ?? [] }
  }
  const write = (whole: Buffer) => async (sink: VaultSink) => {
    const writer = sink.blocks('base/5/1', entry(whole.length))
    await writer.write(whole)
    assert.equal((await writer.end()).sizeBytes, whole.length)
  }

  const before = randomBytes(5 * blockBytes + 3 * 8192)
  const first = await take(undefined, write(before))
  assert.ok(first.bytes.equals(before))
  assert.equal(first.dataBlobs, 6)

  // A page in the second block changes, and the file grows by pages of which the last one came.
  const after = Buffer.concat([before, Buffer.alloc(2 * blockBytes)])
  const changed = [blockBytes + 8192, after.length - 8192].map((offset) => {
    const bytes = randomBytes(8192)
    bytes.copy(after, offset)
    return { offset, bytes }
  })
  const extents = async function* () {
    yield* changed
  }
  const patched = await take(first.nodes, (sink) =>
    sink.patch('base/5/1', entry(after.length), extents()),
  )
  assert.ok(patched.bytes.equals(after))
  assert.equal(patched.blobs.length, 8)
  const kept = patched.blobs.filter((id) => first.blobs.includes(id))
  assert.equal(kept.length, 4)

  const whole = await take(undefined, write(after))
  assert.deepEqual(whole.blobs, patched.blobs)
  assert.equal(whole.dataBlobs, 0)
})
