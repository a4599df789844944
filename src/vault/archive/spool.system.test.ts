import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash, randomFillSync } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { test } from 'node:test'
import {
  collect,
  FakeLog,
  source,
  VaultKeys,
  writerOptions,
} from '../../../test/support/archive.ts'
import { Scratch } from '../../../test/support/scratch.ts'
import { MemStorage } from '#storage/mem'
import { parseKey } from './names.ts'
import { openReader } from './reader.ts'
import { openWriter } from './writer.ts'

const { signal } = new AbortController()
const keys = new VaultKeys()

test('a spool on a full disk stops nothing: what it lacks is read from the store', async () => {
  using scratch = new Scratch()
  const storage = new MemStorage()
  const log = new FakeLog()
  const folder = scratch.join('small')
  mkdirSync(folder)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8k', 'tmpfs', folder])
  try {
    const options = writerOptions(keys, storage, folder, { reading: keys.reading })
    await using writer = await openWriter(options, signal)
    for (const block of log.blocks(0, 20_000, 500)) await writer.append(block, { signal })
    await writer.settle({ signal })
  } finally {
    execFileSync('umount', [folder])
  }
  const reader = await openReader({ storage, source, reading: keys.reading, signal })
  for (let at = 0; at < 20_000; at += 1000) {
    const bytes = await collect(await reader.read(log.segment(at), { signal }))
    assert.deepEqual(bytes, log.bytes(at, at + 1000))
  }
  const stored = await Array.fromAsync(storage.list(`log/${source}/h1/`), ({ key }) => key)
  const kinds = stored.map((key) => parseKey(key)?.kind)
  assert.equal(kinds.filter((kind) => kind === 'full').length, 20)
})

test('a segment that is larger than a fold keeps in memory is folded through a file, byte for byte', async () => {
  using scratch = new Scratch()
  const storage = new MemStorage()
  const options = writerOptions(keys, storage, scratch.path)
  const sizeBytes = 45 * 1024 * 1024
  const pieceBytes = 1024 * 1024
  const written = createHash('sha256')
  {
    await using writer = await openWriter(options, signal)
    for (let at = 0; at < sizeBytes; at += pieceBytes) {
      const bytes = randomFillSync(Buffer.alloc(pieceBytes))
      written.update(bytes)
      const next = at + pieceBytes
      const block = {
        kind: 'block',
        history: 'h1',
        segment: 'large',
        offset: at,
        bytes,
        first: String(at).padStart(12, '0'),
        next: String(next).padStart(12, '0'),
        commits: [],
        closes: next === sizeBytes,
      } as const
      await writer.append(block, { signal })
    }
    await writer.settle({ signal })
  }
  const full = await Array.fromAsync(storage.list(`log/${source}/h1/`), ({ key }) => key)
  for (const key of full) if (parseKey(key)?.kind !== 'full') await storage.delete(key)
  const reader = await openReader({ storage, source, reading: keys.reading, signal })
  const read = createHash('sha256')
  for await (const bytes of (await reader.read('large', { signal })) ?? []) read.update(bytes)
  assert.equal(read.digest('hex'), written.digest('hex'))
})

test('one block of 50 MB is cut into parts, and is durable only as a whole', async () => {
  using scratch = new Scratch()
  const storage = new MemStorage()
  await using writer = await openWriter(writerOptions(keys, storage, scratch.path), signal)
  const bytes = Buffer.alloc(50_000_000)
  for (let at = 0; at < bytes.length; at += 997) bytes[at] = at & 255
  const block = {
    kind: 'block',
    history: 'h1',
    segment: 's',
    offset: 0,
    bytes,
    first: 'a',
    next: 'b',
    commits: [{ at: 'b', timeUs: 1n, id: 'tx' }],
    closes: true,
  } as const
  const told: string[] = []
  writer.onDurable(({ at }) => told.push(at))
  await writer.append(block, { signal })
  await writer.settle({ signal })
  assert.deepEqual(new Set(told.slice(0, -1)), new Set(['a']))
  assert.equal(told.at(-1), 'b')
  const reader = await openReader({ storage, source, reading: keys.reading, signal })
  assert.ok((await collect(await reader.read('s', { signal }))).equals(bytes))
})
