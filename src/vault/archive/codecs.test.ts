import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { test } from 'node:test'
import fc from 'fast-check'
import { Fault, isFault } from '#base/faults'
import { VaultKeys } from '../../../test/support/archive.ts'
import { createFileKey } from './age/age.ts'
import { parseHeader } from './age/header.ts'
import { ProcessHolder } from './holder.ts'
import { decodeText, encodeText, formatKey, type ObjectName, parseKey } from './names.ts'
import { sealHead } from './object.ts'
import { decodePiece, encodePiece, type Piece, splitPieces } from './piece.ts'
import { noLink, readRecord } from './record.ts'

test('any text goes into a key and comes back, and no two texts share one', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      const encoded = encodeText(text)
      assert.match(encoded, /^[A-Za-z0-9._=]+$/)
      assert.ok(!encoded.startsWith('.'))
      // A lone surrogate has no UTF-8: it becomes the replacement character.
      if (text.isWellFormed()) assert.equal(decodeText(encoded), text)
    }),
  )
  for (const bad of ['=', '=4', '=41', 'a-b', '=zz', '.a', '=FF', '']) {
    assert.equal(decodeText(bad), undefined, bad)
  }
})

test('names read back as they were written; nothing else is a name', () => {
  const text = fc.string({ minLength: 0, maxLength: 12 })
  const count = fc.nat(999_999_999)
  const name = fc.record({
    kind: fc.constantFrom('part' as const, 'run' as const, 'full' as const),
    source: text,
    history: text,
    first: text,
    segment: text,
    offset: count,
    sequenceFirst: count,
    sequenceLast: count,
    writerEpoch: fc.option(fc.nat(99_999_999), { nil: undefined }),
  })
  fc.assert(
    fc.property(name, (one) => {
      assert.deepEqual({ ...parseKey(formatKey(one)) }, { ...one })
    }),
  )
  for (const key of ['', 'log', 'log/a/b', 'log/a/b/c', 'log/a/=lease/00000001', 'data/00/ff']) {
    assert.equal(parseKey(key), undefined, key)
  }
  const long: ObjectName = { ...fc.sample(name, 1)[0], segment: 'x'.repeat(300) } as ObjectName
  assert.throws(
    () => formatKey(long),
    (e) => isFault(e, 'unsupported'),
  )
})

const piece: Piece = {
  first: '0001',
  next: '0009',
  commits: [
    { at: '0004', timeUs: 1_700_000_000_123_456n, id: '0-1-77' },
    { at: '0009', timeUs: -5n, id: '' },
  ],
  bytes: Buffer.concat([randomBytes(100), Buffer.alloc(5000, 7)]),
}

async function* inPieces(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

test('pieces come back from a stream cut at every byte', async () => {
  const empty = { ...piece, bytes: Buffer.alloc(0), commits: [] }
  const packed = [piece, empty, piece].map((one) => Buffer.concat(encodePiece(one, 1)))
  const stream = Buffer.concat(packed)
  for (let size = 1; size <= stream.length; size += size < 40 ? 1 : 37) {
    const found = await Array.fromAsync(splitPieces(inPieces(stream, size), 'x'))
    assert.deepEqual(
      found.map((one) => decodePiece(one, 'x')),
      [piece, empty, piece],
    )
  }
})

test('a piece that is flipped or cut anywhere gives a Fault', async () => {
  const packed = Buffer.concat(encodePiece(piece, 1))
  for (let at = 0; at < packed.length; at++) {
    const bad = Buffer.from(packed)
    bad[at] = (bad[at] ?? 0) ^ (1 << (at % 8))
    try {
      // The magic number and the block sizes of zstd hold bits that change nothing.
      assert.deepEqual(decodePiece(bad, 'x'), piece, `byte ${at}`)
    } catch (error) {
      assert.ok(error instanceof Fault, `byte ${at}: ${String(error)}`)
    }
    const cut = Array.fromAsync(splitPieces(inPieces(packed.subarray(0, at), 100), 'x'))
    if (at > 0) await assert.rejects(cut, Fault)
  }
})

test('a record that is changed in any byte is refused', () => {
  const keys = new VaultKeys()
  const draft = {
    kind: 'part' as const,
    source: 'shop',
    history: 'h',
    segment: 's',
    offset: 0,
    sizeBytes: 10,
    first: '1',
    next: '2',
    closes: false,
    sequenceFirst: 1,
    sequenceLast: 1,
    previous: noLink,
    hole: false,
    commits: 1,
    latestUs: 5n,
    epoch: 1,
  }
  const { header, record } = sealHead(draft, noLink, createFileKey(), keys.sealing)
  const stanzas = parseHeader(header)?.stanzas ?? []
  const own = stanzas.find(({ type }) => type === 'redoubt-log')
  assert.ok(own)
  const request = { key: formatKey(record), vault: 'vault-1', keyring: keys.keyring }
  assert.deepEqual(
    JSON.parse(JSON.stringify(readRecord(stanzas, request).record, texts)),
    JSON.parse(JSON.stringify(record, texts)),
  )
  for (let at = 0; at < own.body.length; at++) {
    const body = Buffer.from(own.body)
    body[at] = (body[at] ?? 0) ^ 1
    assert.throws(
      () => readRecord([{ ...own, body }], request),
      (e) => isFault(e, 'forged'),
    )
  }
  for (const args of [
    [],
    ['x'],
    [own.args[0] ?? '', 'AAAA'],
    ['0'.repeat(16), own.args[1] ?? ''],
  ]) {
    assert.throws(
      () => readRecord([{ ...own, args }], request),
      (e) => isFault(e, 'forged'),
    )
  }
})

function texts(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? value.toString() : value
}

test('a holder knows itself, the dead of its machine, and nobody else', async () => {
  const holder = new ProcessHolder()
  holder.begin('a')
  assert.equal(holder.isDead({ holder: holder.text, nonce: 'a' }), false)
  holder.end('a')
  assert.equal(holder.isDead({ holder: holder.text, nonce: 'a' }), true)
  const child = spawn(process.execPath, ['-e', ''])
  await once(child, 'close')
  const [machine = '', pid, started] = holder.text.split(' ')
  const dead = `${machine} ${child.pid} 12345`
  assert.equal(holder.isDead({ holder: dead, nonce: 'a' }), true)
  assert.equal(holder.isDead({ holder: `other ${child.pid} 12345`, nonce: 'a' }), false)
  assert.equal(holder.isDead({ holder: `${machine} ${pid} ${started}1`, nonce: 'a' }), true)
  assert.equal(holder.isDead({ holder: 'nonsense', nonce: 'a' }), false)
})
