import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FileReader } from './file-reader.ts'

test('FileReader has not caught up before it has read again what is before the cursor', () => {
  const cursor = { history: 'h', name: 'binlog.000007', place: { file: 7, offset: 500 } }
  const reader = new FileReader(cursor, 'mysql')
  assert.equal(reader.caughtUp, false)
  reader.begin('binlog.000007')
  // The first four bytes of a file are not sent.
  reader.take(Buffer.alloc(495), undefined)
  assert.equal(reader.caughtUp, false)
  reader.take(Buffer.alloc(1), undefined)
  assert.equal(reader.caughtUp, true)
  assert.deepEqual(reader.cursor, { ...cursor, place: { ...cursor.place, stamp: undefined } })
  reader.take(Buffer.alloc(1), undefined)
  assert.equal(reader.caughtUp, false)
  assert.equal(reader.flush()?.first, '0000000007.000000000500')
  assert.equal(reader.caughtUp, true)
})
