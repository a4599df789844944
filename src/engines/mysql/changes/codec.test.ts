import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFault } from '#base/faults'
import { cellAbsent, cellNull } from '#change/batch'
import { type CellLayout, type CellRoom, type RowsJob, takeRows } from './cells.kernel.ts'
import { decodeJsonPatch, formatJson } from './json.ts'
import { mayRenameColumns } from './statement.ts'
import { decodeTableMap, fixedSize } from './table-map.ts'
import { formatDecimal } from './temporal.ts'
import { parseXa } from './xa.ts'

/** The table map of `t (id int, v varchar(40), d decimal(12,3), at datetime(2), e enum)` with all that a server may say. */
const captured = Buffer.from(
  [
    '6c0000000000',
    '0100',
    '01',
    '64',
    '00',
    '01',
    '74',
    '00',
    '05',
    '030ff612fe',
    '07',
    'a000',
    '0c03',
    '02',
    'f701',
    '1e',
    '0101c0',
    '0203fcff00',
    '0410' + '026964' + '0176' + '0164' + '026174' + '0165',
  ].join(''),
  'hex',
)

test('a table map is read, and no cut or change of it does more than a Fault', () => {
  const whole = captured.subarray(0, captured.length)
  const map = decodeTableMap(fixNames(whole), 6)
  assert.equal(map.database, 'd')
  assert.deepEqual(
    map.columns.map(({ code, modifier, name, unsigned }) => [code, modifier, name, unsigned]),
    [
      [3, 0, 'id', true],
      [15, 160, 'v', false],
      [246, 12 * 256 + 3, 'd', true],
      [18, 2, 'at', false],
      [247, 1, 'e', false],
    ],
  )
  const good = fixNames(whole)
  for (let size = 0; size < good.length; size++)
    onlyFaults(() => decodeTableMap(good.subarray(0, size), 6))
  fc.assert(
    fc.property(fc.nat(good.length - 1), fc.nat(255), (at, byte) => {
      const broken = Buffer.from(good)
      broken[at] = byte
      onlyFaults(() => decodeTableMap(broken, 6))
    }),
    { seed: 7, numRuns: 2000 },
  )
})

/** The length of the field with the names is that of the names. */
function fixNames(bytes: Buffer): Buffer {
  const fixed = Buffer.from(bytes)
  const at = fixed.lastIndexOf(Buffer.from('0410026964', 'hex'))
  fixed[at + 1] = fixed.length - at - 2
  return fixed
}

function onlyFaults(run: () => unknown): void {
  try {
    run()
  } catch (error) {
    assert.ok(isFault(error), String(error))
  }
}

type Value = Buffer | null | undefined
type Column = { readonly lengthSize: number; readonly size: number; readonly patchable: boolean }

const columnOf = fc.record({
  lengthSize: fc.constantFrom(0, 1, 2, 3, 4),
  size: fc.nat(9),
  patchable: fc.boolean(),
})

/** A row image in the plainest way. */
function encodeImage(columns: readonly Column[], values: readonly Value[]): Buffer {
  const there = values.filter((value) => value !== undefined)
  const nulls = Buffer.alloc((there.length + 7) >> 3)
  for (const [at, value] of there.entries()) {
    if (value === null) nulls[at >> 3] = (nulls[at >> 3] ?? 0) | (1 << (at & 7))
  }
  const cells = columns.flatMap(({ lengthSize }, index) => {
    const value = values[index]
    if (!value) return []
    const head = Buffer.alloc(lengthSize)
    if (lengthSize > 0) head.writeUIntLE(value.length, 0, lengthSize)
    return [head, value]
  })
  return Buffer.concat([nulls, ...cells])
}

const tables = fc.array(columnOf, { minLength: 1, maxLength: 20 }).chain((columns) =>
  fc.record({
    columns: fc.constant(columns),
    present: fc.array(fc.boolean(), { minLength: columns.length, maxLength: columns.length }),
    rows: fc.array(
      fc.tuple(
        ...columns.map(({ lengthSize, size }) =>
          fc.option(
            fc
              .uint8Array(
                lengthSize === 0 ? { minLength: size, maxLength: size } : { maxLength: 200 },
              )
              .map((bytes) => Buffer.from(bytes)),
          ),
        ),
      ),
      { minLength: 1, maxLength: 8 },
    ),
  }),
)

function layoutOf(columns: readonly Column[]): CellLayout {
  return {
    columns: columns.length,
    lengthSizes: Uint8Array.from(columns, (column) => column.lengthSize),
    sizes: Int32Array.from(columns, (column) => (column.lengthSize === 0 ? column.size : 0)),
    patchable: Uint8Array.from(columns, (column) => (column.patchable ? 1 : 0)),
  }
}

test('cells of row images are found as a plain reading finds them, in rooms of any size', () => {
  fc.assert(
    fc.property(tables, fc.integer({ min: 1, max: 5 }), ({ columns, present, rows }, some) => {
      const wanted = rows.map((row) => row.map((cell, at) => (present[at] ? cell : undefined)))
      const bytes = Buffer.concat(wanted.map((row) => encodeImage(columns, row)))
      const flags = present.every(Boolean) ? undefined : Uint8Array.from(present, Number)
      // Rows without any byte are told from the end of the event by nothing: the server writes one of them.
      fc.pre(bytes.length > 0 && !wanted.some((row) => encodeImage(columns, row).length === 0))
      const job = jobOf(columns, bytes, flags)
      const found: Value[][] = []
      for (let turn = 0; turn < 100; turn++) {
        const room: CellRoom = { cells: new Int32Array(columns.length * 2 * some), used: 0 }
        const state = takeRows(job, room)
        assert.notEqual(state, 'broken')
        found.push(...valuesOf(bytes, room, columns.length))
        if (state === 'done') break
      }
      assert.deepEqual(found, wanted)
    }),
    { seed: 11, numRuns: 500 },
  )
})

function jobOf(
  columns: readonly Column[],
  bytes: Buffer,
  present: Uint8Array | undefined,
): RowsJob {
  const counts = { at: 0, end: bytes.length, rows: 0, rowsMax: 1000 }
  return { layout: layoutOf(columns), bytes, present: [present], partial: false, ...counts }
}

function valuesOf(bytes: Buffer, room: CellRoom, columns: number): Value[][] {
  const rows: Value[][] = []
  for (let at = 0; at < room.used; at += columns * 2) {
    rows.push(
      Array.from({ length: columns }, (_, index) => {
        const [start = 0, end = 0] = room.cells.subarray(at + index * 2, at + index * 2 + 2)
        if (start === cellNull) return null
        return start === cellAbsent ? undefined : bytes.subarray(start, end)
      }),
    )
  }
  return rows
}

test('no bytes make a cell that lies outside of its event', () => {
  fc.assert(
    fc.property(
      fc.array(columnOf, { minLength: 1, maxLength: 12 }),
      fc.uint8Array({ maxLength: 300 }),
      (columns, raw) => {
        const bytes = Buffer.from(raw)
        const job = jobOf(columns, bytes, undefined)
        const room: CellRoom = { cells: new Int32Array(columns.length * 2 * 400), used: 0 }
        takeRows(job, room)
        for (let at = 0; at < room.used; at += 2) {
          const [start = 0, end = 0] = room.cells.subarray(at, at + 2)
          assert.ok(start === cellNull || (start >= 0 && start <= end && end <= bytes.length))
        }
        assert.ok(job.at <= bytes.length)
      },
    ),
    { seed: 13, numRuns: 2000 },
  )
})

test('decimals are read digit by digit', () => {
  // 1234567890.1234 as DECIMAL(14,4), from the manual of the storage format, and its negative.
  const positive = Buffer.from('810dfb38d204d2', 'hex')
  const negative = Buffer.from(positive.map((byte) => ~byte & 255))
  assert.equal(formatDecimal(positive, 0, 14, 4), '1234567890.1234')
  assert.equal(formatDecimal(negative, 0, 14, 4), '-1234567890.1234')
  assert.equal(formatDecimal(Buffer.from('800000', 'hex'), 0, 5, 2), '0.00')
  assert.equal(fixedSize(246, 14 * 256 + 4), 7)
})

test('JSON values of any bytes are text or a Fault', () => {
  // {"a": [1, "x"], "b": null}
  const object =
    '00' +
    '0200' +
    '1f00' +
    '1200' +
    '0100' +
    '1300' +
    '0100' +
    '02' +
    '1400' +
    '04' +
    '0000' +
    '61' +
    '62' +
    '0200' +
    '0c00' +
    '05' +
    '0100' +
    '0c' +
    '0a00' +
    '0178'
  const bytes = Buffer.from(object, 'hex')
  bytes.writeUInt16LE(bytes.length - 1, 3)
  // What is in the array is told from its own beginning.
  bytes.writeUInt16LE(12, 1 + 20 + 2)
  assert.equal(formatJson(bytes), '{"a": [1, "x"], "b": null}')
  for (let size = 1; size < bytes.length; size++)
    onlyFaults(() => formatJson(bytes.subarray(0, size)))
  fc.assert(
    fc.property(fc.nat(bytes.length - 1), fc.nat(255), (at, byte) => {
      const broken = Buffer.from(bytes)
      broken[at] = byte
      onlyFaults(() => formatJson(broken))
      onlyFaults(() => decodeJsonPatch(broken))
    }),
    { seed: 17, numRuns: 3000 },
  )
})

test('statements that may give columns other names are told from those that cannot', () => {
  const said = (sql: string) => mayRenameColumns(Buffer.from(sql))
  assert.ok(said('alter table t change a b int'))
  assert.ok(said('ALTER TABLE t RENAME COLUMN a TO b'))
  assert.ok(said('/* x */ drop table t'))
  assert.ok(!said('alter table t add index (a)'))
  assert.ok(!said('alter table t rename index a to b'))
  assert.ok(!said('truncate table t'))
  assert.ok(!said('create index i on t (a)'))
})

test('names of prepared transactions are read from statements as from events', () => {
  assert.deepEqual(parseXa(`XA COMMIT X'6F6e65',X'62',7`), { verb: 'commit', xid: '6f6e65.62.7' })
  assert.equal(parseXa('XA RECOVER'), undefined)
})
