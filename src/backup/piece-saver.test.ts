import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createProgress } from '#base/progress'
import { MemStorage } from '#storage/mem'
import { initRepository } from '#vault/repository/open'
import { PieceSaver } from './piece-saver.ts'

const { signal } = new AbortController()
const passwordCost = { n: 2, r: 1, p: 1 }

async function open() {
  const repository = await initRepository(new MemStorage(), 'pw', { signal, passwordCost })
  await repository.loadIndex({ signal })
  return repository
}

/** The same buffer again and again, filled anew: as a socket's reader does it. */
async function* reused(
  total: number,
  seed: number,
  bufferBytes = 100_000,
): AsyncGenerator<Buffer, void, void> {
  const buffer = Buffer.alloc(bufferBytes)
  for (let at = 0; at < total; at += buffer.length) {
    const size = Math.min(buffer.length, total - at)
    for (let i = 0; i < size; i++) buffer[i] = ((at + i) * 31 + ((at + i) >> 9) * seed) & 0xff
    yield buffer.subarray(0, size)
  }
}

test('streams of several pieces come back byte by byte, small and empty ones too', async () => {
  const repository = await open()
  await using saver = await repository.openSaver({ signal, workers: 2 })
  const progress = createProgress('test')
  const pieces = new PieceSaver(saver, progress)
  const sizes = [0, 1, 99_999, 16 * 2 ** 20, 35_000_001]
  const saved = new Map<number, readonly string[]>()
  for (const size of sizes) {
    await pieces.take(reused(size, size), ({ blobs, sizeBytes }) => {
      assert.equal(sizeBytes, BigInt(size))
      saved.set(size, blobs)
    })
  }
  await pieces.idle()
  await saver.finish()
  const total = sizes.reduce((a, b) => a + b)
  assert.equal(progress.doneBytes, total, 'each byte is counted once')
  await repository.loadIndex({ signal })
  for (const size of sizes) {
    const expected = Buffer.concat(
      (await Array.fromAsync(reused(size, size), (bytes) => Buffer.from(bytes))) as Buffer[],
    )
    const parts: Buffer[] = []
    for (const id of saved.get(size) ?? []) {
      parts.push(Buffer.from(await repository.loadBlob('data', id, { signal })))
    }
    assert.ok(Buffer.concat(parts).equals(expected), `${size} bytes`)
  }
})

test('a stream is cut at the same offsets however its bytes arrive', async () => {
  const repository = await open()
  await using saver = await repository.openSaver({ signal, workers: 2 })
  const pieces = new PieceSaver(saver, createProgress('test'))
  const cuts: (readonly string[])[] = []
  for (const bufferBytes of [100_000, 65_536, 20_000_000]) {
    await pieces.take(reused(40_000_000, 5, bufferBytes), ({ blobs }) => cuts.push(blobs))
    await pieces.idle()
  }
  await saver.finish()
  assert.equal(cuts[0]?.length, 5)
  assert.deepEqual(cuts[1], cuts[0])
  assert.deepEqual(cuts[2], cuts[0])
})

test('a stream that fails throws at once, and a saver that fails at the next call or at idle()', async () => {
  const repository = await open()
  await using saver = await repository.openSaver({ signal, workers: 1 })
  const pieces = new PieceSaver(saver, createProgress('test'))
  async function* broken(): AsyncGenerator<Buffer, void, void> {
    yield Buffer.alloc(10)
    throw new Error('the server went')
  }
  await assert.rejects(
    pieces.take(broken(), () => undefined),
    /the server went/,
  )
  const failing = {
    ...saver,
    saveContent: () => Promise.reject(new Error('the store is full')),
    saveBlob: saver.saveBlob.bind(saver),
    finish: saver.finish.bind(saver),
    [Symbol.asyncDispose]: async () => undefined,
  }
  const refused = new PieceSaver(failing, createProgress('test'))
  await refused.take(reused(10, 1), () => assert.fail('nothing was stored'))
  await assert.rejects(refused.idle(), /the store is full/)
  await assert.rejects(
    refused.take(reused(10, 1), () => undefined),
    /the store is full/,
  )
})
