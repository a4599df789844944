import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { Chunker, chunkerBytes } from './chunker.ts'
import { Kernels, kernelDataAt } from './kernels.ts'
import { chunkBytesMax, chunkBytesMin, chunkMask } from './limits.ts'

const polynomial = 0x3da3358b4dc173n

/** Cuts a whole content that lies in memory at once, by the definition of a chunk. */
function plainCuts(content: Buffer): number[] {
  const kernels = new Kernels(content.length)
  kernels.usePolynomial(polynomial)
  kernels.bytes.set(content, kernelDataAt)
  const cuts: number[] = []
  for (let start = 0; start < content.length; ) {
    const limit = Math.min(content.length, start + chunkBytesMax)
    const from = start + chunkBytesMin
    const found =
      from <= limit ? kernels.findCut(kernelDataAt + from, kernelDataAt + limit, chunkMask) : 0
    start = found === 0 ? limit : found - kernelDataAt
    cuts.push(start)
  }
  return cuts
}

/** Cuts it as it comes, in pieces of the sizes that `pieceBytes` says. */
function streamCuts(chunker: Chunker, content: Buffer, pieceBytes: () => number): number[] {
  const cuts: number[] = []
  chunker.reset()
  let end = 0
  for (let at = 0; ; ) {
    const size = content.copy(chunker.room(), 0, at, Math.min(content.length, at + pieceBytes()))
    at += size
    chunker.filled(size)
    const isLast = at === content.length
    for (let chunk = chunker.next(isLast); chunk; chunk = chunker.next(isLast)) {
      assert.ok(chunk.equals(content.subarray(end, end + chunk.length)), `chunk at ${end}`)
      end += chunk.length
      cuts.push(end)
    }
    if (isLast) return cuts
  }
}

function makeChunker(): Chunker {
  const kernels = new Kernels(chunkerBytes)
  kernels.usePolynomial(polynomial)
  return new Chunker(kernels, kernelDataAt)
}

const contents: Readonly<Record<string, Buffer>> = {
  nothing: Buffer.alloc(0),
  'one byte': Buffer.alloc(1),
  'just below the least chunk': randomBytes(chunkBytesMin - 1),
  'the least chunk': randomBytes(chunkBytesMin),
  random: randomBytes(11_000_000),
  zeroes: Buffer.alloc(2_000_000),
  'no cut at all': Buffer.alloc(chunkBytesMax * 2 + 777, 1),
}

for (const [name, content] of Object.entries(contents)) {
  test(`chunks do not depend on how the bytes arrive: ${name}`, () => {
    const chunker = makeChunker()
    const cuts = plainCuts(content)
    let turn = 0
    const sizes = [() => 1 << 30, () => 65_537, () => 1 + ((turn++ * 7919 * 104_729) % 900_000)]
    for (const pieceBytes of sizes) {
      assert.deepEqual(streamCuts(chunker, content, pieceBytes), cuts)
    }
  })
}

test('chunks keep to their bounds', () => {
  assert.deepEqual(plainCuts(Buffer.alloc(2_000_000)).slice(0, 3), [524_288, 1_048_576, 1_572_864])
  const long = Buffer.alloc(chunkBytesMax * 2 + 777, 1)
  assert.deepEqual(plainCuts(long), [chunkBytesMax, 2 * chunkBytesMax, long.length])
})

test('what is inserted moves no border behind the next one', () => {
  const content = randomBytes(12_000_000)
  const cuts = plainCuts(content)
  const shifted = plainCuts(Buffer.concat([Buffer.from('inserted'), content]))
  const same = new Set(shifted.map((cut) => cut - 8))
  assert.ok(cuts.filter((cut) => same.has(cut)).length >= cuts.length - 2)
})
