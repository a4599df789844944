import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
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
import { MemStorage } from '../../storage/mem/mem.ts'
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
