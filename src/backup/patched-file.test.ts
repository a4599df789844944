import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Extent, layChunks, patchFile } from './patched-file.ts'

const parts = [Buffer.from('aaaa'), Buffer.from('bbbbbb'), Buffer.from('cc'), Buffer.from('dddd')]
const parent = parts.map((bytes, index) => ({ id: String(index), sizeBytes: bytes.length }))

async function patch(sizeBytes: number, extents: readonly Extent[]) {
  const loaded: string[] = []
  const load = async (id: string) => {
    loaded.push(id)
    return parts[Number(id)] ?? Buffer.alloc(0)
  }
  const pieces: string[] = []
  const whole: Buffer[] = []
  const feed = (async function* () {
    yield* extents
  })()
  for await (const piece of patchFile(layChunks(parent, sizeBytes), sizeBytes, feed, load)) {
    if (piece.kind === 'kept') {
      pieces.push(`kept ${piece.id}`)
      whole.push(parts[Number(piece.id)] ?? Buffer.alloc(0))
    } else {
      const bytes = Buffer.concat(await Array.fromAsync(piece.bytes))
      pieces.push(`changed ${bytes.length}`)
      whole.push(bytes)
    }
  }
  return { pieces, loaded, text: Buffer.concat(whole).toString() }
}

const extent = (offset: number, text: string): Extent => ({ offset, bytes: Buffer.from(text) })

test('patchFile() keeps every chunk that nothing touches, unread', async () => {
  const { pieces, loaded, text } = await patch(16, [])
  assert.deepEqual(pieces, ['kept 0', 'kept 1', 'kept 2', 'kept 3'])
  assert.deepEqual(loaded, [])
  assert.equal(text, 'aaaabbbbbbccdddd')
})

test('patchFile() loads and patches only touched chunks, neighbours in one run', async () => {
  const { pieces, loaded, text } = await patch(16, [extent(5, 'XY'), extent(9, 'ZZZ')])
  assert.deepEqual(pieces, ['kept 0', 'changed 8', 'kept 3'])
  assert.deepEqual(loaded, ['1', '2'])
  assert.equal(text, 'aaaabXYbbZZZdddd')
})

test('patchFile() cuts a file and extends it by zeroes', async () => {
  assert.equal((await patch(7, [])).text, 'aaaabbb')
  assert.deepEqual((await patch(10, [])).pieces, ['kept 0', 'kept 1'])
  assert.equal((await patch(19, [extent(17, 'E')])).text, 'aaaabbbbbbccdddd\0E\0')
  assert.equal((await patch(0, [])).text, '')
})

test('patchFile() refuses extents out of order or behind the end', async () => {
  await assert.rejects(patch(16, [extent(4, 'XX'), extent(5, 'Y')]), /overlaps/)
  await assert.rejects(patch(16, [extent(16, 'X')]), /behind its end/)
})

test('patchFile() equals a plain overwrite for random extents', async () => {
  let seed = 42
  const random = (below: number) => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0
    return (seed >>> 8) % below
  }
  for (let round = 0; round < 500; round++) {
    const size = random(24)
    const expected = Buffer.alloc(size)
    Buffer.concat(parts).copy(expected)
    const extents: Extent[] = []
    for (let at = random(6); at < size; ) {
      const one = extent(at, 'XYZWV'.slice(0, 1 + random(Math.min(5, size - at))))
      one.bytes.copy(expected, at)
      extents.push(one)
      at += one.bytes.length + random(6)
    }
    assert.equal((await patch(size, extents)).text, expected.toString(), `round ${round}`)
  }
})

test('layChunks() keeps to the borders of blocks, also where a file grew', async () => {
  const mib = 2 ** 20
  const parts = [
    { id: 'a', sizeBytes: mib },
    { id: 'b', sizeBytes: 8192 },
  ]
  const chunks = layChunks(parts, 3 * mib + 8192)
  assert.deepEqual(
    chunks.map(({ start, end }) => [start, end]),
    [
      [0, mib],
      [mib, mib + 8192],
      [mib + 8192, 2 * mib],
      [2 * mib, 3 * mib],
      [3 * mib, 3 * mib + 8192],
    ],
  )
  const load = async () => Buffer.alloc(8192, 'b')
  const none = (async function* (): AsyncGenerator<Extent, void, void> {})()
  const pieces: (string | number[])[] = []
  for await (const piece of patchFile(chunks, 3 * mib + 8192, none, load)) {
    if (piece.kind === 'kept') pieces.push(piece.id)
    else {
      const bytes = Buffer.concat(await Array.fromAsync(piece.bytes))
      pieces.push([piece.offset, bytes.length, bytes.indexOf(0)])
    }
  }
  // The last block of the parent is filled up, not followed by another small one.
  assert.deepEqual(pieces, ['a', [mib, 2 * mib + 8192, 8192]])
})
