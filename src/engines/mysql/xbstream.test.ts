import assert from 'node:assert/strict'
import { test } from 'node:test'
import { crc32 } from 'node:zlib'
import { isFault } from '#base/faults'
import { readXbstream } from './xbstream.ts'

function payload(path: string, offset: number, bytes: Buffer): Buffer {
  const fixed = Buffer.alloc(20)
  fixed.writeBigUInt64LE(BigInt(bytes.length), 0)
  fixed.writeBigUInt64LE(BigInt(offset), 8)
  fixed.writeUInt32LE(crc32(bytes), 16)
  return Buffer.concat([head('P', path), fixed, bytes])
}

function head(type: string, path: string): Buffer {
  const size = Buffer.alloc(4)
  size.writeUInt32LE(Buffer.byteLength(path))
  return Buffer.concat([Buffer.from(`XBSTCK01\0${type}`), size, Buffer.from(path)])
}

async function collect(pieces: readonly Buffer[]): Promise<Record<string, string>> {
  const files: Record<string, string> = {}
  const source = (async function* () {
    yield* pieces
  })()
  for await (const chunk of readXbstream(source)) {
    files[chunk.path] = (files[chunk.path] ?? '') + (chunk.bytes?.toString() ?? '.')
  }
  return files
}

const stream = Buffer.concat([
  payload('ibdata1', 0, Buffer.from('abc')),
  payload('d/t.ibd', 0, Buffer.from('xy')),
  payload('ibdata1', 3, Buffer.from('def')),
  head('E', 'd/t.ibd'),
  head('E', 'ibdata1'),
])

test('files of a backup stream come apart, wherever it is cut', async () => {
  for (let cut = 0; cut <= stream.length; cut++) {
    const files = await collect([stream.subarray(0, cut), stream.subarray(cut)])
    assert.deepEqual(files, { ibdata1: 'abcdef.', 'd/t.ibd': 'xy.' })
  }
})

test('damage, holes and foreign bytes in a backup stream are faults', async () => {
  const bad = [
    stream.subarray(0, stream.length - 1),
    Buffer.concat([payload('a', 5, Buffer.from('x'))]),
    Buffer.from('this is no backup stream at all'),
    Buffer.concat([head('Z', 'a')]),
  ]
  const flipped = Buffer.from(stream)
  flipped[45] = (flipped[45] ?? 0) ^ 1
  for (const bytes of [...bad, flipped]) {
    await assert.rejects(collect([bytes]), (error) => isFault(error, 'protocol', 'unsupported'))
  }
})
