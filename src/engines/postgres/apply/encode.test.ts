import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Reader } from '#base/bytes'
import {
  arraysBytes,
  type Cells,
  copyRowBytesMax,
  putArrays,
  putCopyRow,
  putValues,
  valuesBytes,
} from './encode.kernel.ts'

const long = 'é'.repeat(100)
const rows: readonly (string | null)[][] = [
  ['', 'a\tb\nc\rd\\e', null],
  [long, '\\N', 'x'],
]

function cellsOf(row: readonly (string | null)[]): Cells {
  const bytes = Buffer.from(`junk${row.map((cell) => cell ?? '').join('')}`)
  let at = 4
  const cells = row.flatMap((cell) => {
    if (cell === null) return [-1, 0]
    const from = at
    at += Buffer.byteLength(cell)
    return [from, at]
  })
  return {
    bytes,
    cells: Int32Array.from([9, 9, ...cells]),
    base: 2,
    places: Int32Array.from(row, (_, index) => index * 2),
  }
}

test('putCopyRow: a line reads back as its values, and never takes more than was said', () => {
  for (const row of rows) {
    const cells = cellsOf(row)
    const out = Buffer.alloc(copyRowBytesMax(cells))
    const line = out.toString('utf8', 0, putCopyRow(out, 0, cells))
    assert.ok(line.endsWith('\n'))
    // A field ends at a tab that no backslash is before.
    const fields = [...line.slice(0, -1).matchAll(/((?:\\[^]|[^\\\t])*)(\t|$)/g)].slice(0, 3)
    const values = fields.map(([, field = '']) =>
      field === '\\N' ? null : field.replaceAll(/\\([^])/g, '$1'),
    )
    assert.deepEqual(values, row)
  }
})

test('putValues and putArrays: what was written is what was counted, and reads back', () => {
  const all = rows.map(cellsOf)
  for (const [index, cells] of all.entries()) {
    const out = Buffer.alloc(valuesBytes(cells) - 2)
    assert.equal(putValues(out, 0, cells), out.length)
    const reader = new Reader(out, 'values')
    assert.equal(reader.u16be(), 3)
    assert.deepEqual([value(reader), value(reader), value(reader)], rows[index])
  }
  const out = Buffer.alloc(arraysBytes(all))
  const end = putArrays(out, 0, all)
  assert.ok(end <= out.length)
  const reader = new Reader(out.subarray(0, end), 'arrays')
  assert.equal(reader.u16be(), 3)
  for (let place = 0; place < 3; place += 1) {
    const size = reader.i32be()
    const from = reader.pos
    const head = [1, place === 2 ? 1 : 0, 25, 2, 1]
    assert.deepEqual(
      head,
      head.map(() => reader.i32be()),
    )
    assert.deepEqual([value(reader), value(reader)], [rows[0]?.[place], rows[1]?.[place]])
    assert.equal(reader.pos - from, size)
  }
  assert.equal(reader.left, 0)
})

function value(reader: Reader): string | null {
  const size = reader.i32be()
  return size < 0 ? null : reader.view(size).toString('utf8')
}
