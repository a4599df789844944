import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#base/faults'
import { RowKernel } from './row-kernel.ts'
import { RowText } from './rows.kernel.ts'

type Cell = Buffer | null

/** A row as the server sends it: cells with their lengths, in packets of at most 16 MiB. */
function encodeRow(cells: readonly Cell[]): Buffer {
  const payload = Buffer.concat(
    cells.map((cell) =>
      cell ? Buffer.concat([encodeLength(cell.length), cell]) : Buffer.from([0xfb]),
    ),
  )
  const packets: Buffer[] = []
  for (let at = 0; ; at += 0xffffff) {
    const part = payload.subarray(at, at + 0xffffff)
    const header = Buffer.from([part.length & 255, (part.length >> 8) & 255, part.length >> 16, 1])
    packets.push(header, part)
    if (part.length < 0xffffff) return Buffer.concat(packets)
  }
}

function encodeLength(size: number): Buffer {
  if (size < 0xfb) return Buffer.from([size])
  if (size < 0x10000) return Buffer.from([0xfc, size & 255, size >> 8])
  if (size < 0x1000000) return Buffer.from([0xfd, size & 255, (size >> 8) & 255, size >> 16])
  const long = Buffer.alloc(9, 0xfe)
  long.writeBigUInt64LE(BigInt(size), 1)
  return long
}

const end = Buffer.from([5, 0, 0, 9, 0xfe, 0, 0, 2, 0])

/** What LOAD DATA wants of a row, in the plainest way. */
function lineOf(cells: readonly Cell[]): string {
  const escapes: Record<string, string> = { '\0': '\\0', '\t': '\\t', '\n': '\\n', '\\': '\\\\' }
  const texts = cells.map(
    (cell) => cell?.toString('latin1').replaceAll(/[\0\t\n\\]/g, (c) => escapes[c] ?? c) ?? '\\N',
  )
  return `${texts.join('\t')}\n`
}

function convert(
  bytes: Buffer,
  columns: number,
  cuts: readonly number[],
  kernel?: RowKernel,
  digested = 0,
): { text: string; rows: number; digest?: bigint } {
  const converter = new RowText(columns, kernel, digested)
  const lines: Buffer[] = []
  let from = 0
  for (const cut of [...cuts, bytes.length].toSorted((a, b) => a - b)) {
    for (const text of converter.take(bytes.subarray(from, cut))) lines.push(Buffer.from(text))
    from = cut
  }
  assert.equal(converter.done, true)
  const done = { text: Buffer.concat(lines).toString('latin1'), rows: converter.rows }
  return digested > 0 ? { ...done, digest: converter.digest } : done
}

/** XXH64 in the plainest way: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md */
function xxh64(bytes: Buffer): bigint {
  const [p1, p2, p3] = [0x9e3779b185ebca87n, 0xc2b2ae3d27d4eb4fn, 0x165667b19e3779f9n]
  const [p4, p5] = [0x85ebca77c2b2ae63n, 0x27d4eb2f165667c5n]
  const u64 = (n: bigint) => BigInt.asUintN(64, n)
  const rotate = (n: bigint, by: bigint) => u64((n << by) | (n >> (64n - by)))
  const mix = (sum: bigint, lane: bigint) => u64(rotate(u64(sum + lane * p2), 31n) * p1)
  const sums = [u64(p1 + p2), p2, 0n, u64(-p1)] as const
  const lanes: bigint[] = [...sums]
  let at = 0
  for (; bytes.length - at >= 32; at += 32) {
    for (const [n, lane] of lanes.entries()) {
      lanes[n] = mix(lane, bytes.readBigUInt64LE(at + 8 * n))
    }
  }
  let sum = p5
  if (at > 0) {
    const turns = [1n, 7n, 12n, 18n]
    sum = u64(lanes.reduce((all, lane, n) => all + rotate(lane, turns[n] ?? 0n), 0n))
    for (const lane of lanes) sum = u64((sum ^ mix(0n, lane)) * p1 + p4)
  }
  sum = u64(sum + BigInt(bytes.length))
  for (; bytes.length - at >= 8; at += 8) {
    sum = u64(rotate(sum ^ mix(0n, bytes.readBigUInt64LE(at)), 27n) * p1 + p4)
  }
  if (bytes.length - at >= 4) {
    sum = u64(rotate(sum ^ u64(BigInt(bytes.readUInt32LE(at)) * p1), 23n) * p2 + p3)
    at += 4
  }
  for (; at < bytes.length; at++) {
    sum = u64(rotate(sum ^ u64(BigInt(bytes.readUInt8(at)) * p5), 11n) * p1)
  }
  sum = u64((sum ^ (sum >> 33n)) * p2)
  sum = u64((sum ^ (sum >> 29n)) * p3)
  return sum ^ (sum >> 32n)
}

/** What the digest of these rows is, over so many cells of each. */
function digestOf(rows: readonly Cell[][], digested: number): bigint {
  const sums = rows.map((row) => {
    const line = Buffer.from(lineOf(row.slice(0, digested)), 'latin1')
    if (digested < row.length) line[line.length - 1] = 9
    return xxh64(line)
  })
  return BigInt.asUintN(
    64,
    sums.reduce((all, sum) => all + sum, 0n),
  )
}

test('rows become lines, the same with and without the kernel, wherever the bytes are cut', () => {
  const kernel = new RowKernel()
  const special = fc
    .uint8Array({ maxLength: 80 })
    .map((bytes) =>
      Buffer.from(bytes.map((byte) => (byte % 3 === 0 ? ([0, 9, 10, 92][byte % 4] ?? 0) : byte))),
    )
  const cell = fc.option(special, { nil: null, freq: 6 })
  const shape = fc.integer({ min: 1, max: 5 }).chain((columns) =>
    fc
      .array(fc.array(cell, { minLength: columns, maxLength: columns }), {
        minLength: 0,
        maxLength: 12,
      })
      .map((rows) => ({ columns, rows })),
  )
  fc.assert(
    fc.property(shape, fc.array(fc.nat(), { maxLength: 6 }), ({ columns, rows }, places) => {
      const bytes = Buffer.concat([...rows.map(encodeRow), end])
      const wanted = { text: rows.map(lineOf).join(''), rows: rows.length }
      const cuts = places.map((place) => place % (bytes.length + 1))
      assert.deepEqual(convert(bytes, columns, cuts), wanted)
      assert.deepEqual(convert(bytes, columns, cuts, kernel), wanted)
      const digested = 1 + ((places[0] ?? 0) % columns)
      const digest = digestOf(rows, digested)
      assert.deepEqual(convert(bytes, columns, cuts, kernel, digested), { ...wanted, digest })
      const turned = Buffer.concat([...rows.toReversed().map(encodeRow), end])
      assert.equal(convert(turned, columns, cuts, kernel, digested).digest, digest)
    }),
    { numRuns: 300 },
  )
})

test("the digest's sums are those of XXH64", () => {
  // From the specification's own tool: xxhsum -H1
  assert.equal(xxh64(Buffer.alloc(0)), 0xef46db3751d8e999n)
  assert.equal(xxh64(Buffer.from('abc')), 0x44bc2cf5ad770999n)
  const rows = [[Buffer.from('1'), null], [Buffer.alloc(0x4000, 'ab')]].map((row) =>
    row.slice(0, 1),
  )
  const bytes = Buffer.concat([...rows.map(encodeRow), end])
  assert.equal(convert(bytes, 1, [], new RowKernel(), 1).digest, digestOf(rows, 1))
})

test('every cut of one stream gives the same lines', () => {
  const rows: Cell[][] = [
    [Buffer.from('a\tb'), null, Buffer.alloc(300, 0x5c)],
    [Buffer.alloc(0), Buffer.from('\0\n'), Buffer.from('x'.repeat(40))],
  ]
  const bytes = Buffer.concat([...rows.map(encodeRow), end])
  const wanted = { text: rows.map(lineOf).join(''), rows: 2 }
  const kernel = new RowKernel()
  for (let cut = 0; cut <= bytes.length; cut++) {
    assert.deepEqual(convert(bytes, 3, [cut]), wanted)
    assert.deepEqual(convert(bytes, 3, [cut], kernel), wanted)
  }
})

test('rows of several packets pass in pieces', () => {
  const large = Buffer.alloc(17_000_000, 'y')
  large[16_777_212] = 9
  large[5] = 0
  for (const row of [
    [Buffer.from('k'), large, null],
    [null, Buffer.alloc(0xffffff - 5, 'z'), Buffer.alloc(0)],
    [Buffer.alloc(700_000, 10), null, null],
  ]) {
    const bytes = Buffer.concat([
      encodeRow([Buffer.from('1'), null, Buffer.from('2')]),
      encodeRow(row),
      end,
    ])
    // The first right before the large row: the lines so far must go before it.
    const cuts = [
      9,
      ...Array.from({ length: Math.floor(bytes.length / 65_536) }, (_, n) => n * 65_536),
    ]
    const wanted = lineOf([Buffer.from('1'), null, Buffer.from('2')]) + lineOf(row)
    for (const kernel of [undefined, new RowKernel()]) {
      const done = convert(bytes, 3, cuts, kernel)
      assert.equal(done.rows, 2)
      assert.ok(done.text === wanted)
    }
    for (const digested of [1, 2]) {
      const { digest } = convert(bytes, 3, cuts, new RowKernel(), digested)
      assert.equal(digest, digestOf([[Buffer.from('1'), null, Buffer.from('2')], row], digested))
    }
  }
})

test('bytes that are no rows are a protocol fault, with and without the kernel', () => {
  const row = encodeRow([Buffer.from('abc'), Buffer.from('de')])
  for (const kernel of [undefined, new RowKernel()]) {
    for (const columns of [1, 3]) {
      assert.throws(
        () => convert(Buffer.concat([row, end]), columns, [], kernel),
        (error) => isFault(error, 'protocol'),
      )
    }
    const broken = Buffer.from(row)
    broken[4] = 200
    assert.throws(
      () => convert(Buffer.concat([broken, end]), 2, [], kernel),
      (error) => isFault(error, 'protocol'),
    )
  }
})
