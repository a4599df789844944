import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { CommitFinder } from './commits.ts'
import {
  checksumHolds,
  decodeGtid,
  decodeHeader,
  decodeQuery,
  type EventHeader,
  eventType,
} from './event.ts'
import { decodeDecimal, statementSettings, userVariable } from './settings.ts'
import { encodeEvent } from './stream.ts'

function header(type: number, timestamp = 100): EventHeader {
  return { type, timestamp, serverId: 3, sizeBytes: 0, nextPosition: 0, flags: 0 }
}

function query(sql: string, status = Buffer.alloc(0)): Buffer {
  const fixed = Buffer.alloc(13)
  fixed.writeUInt32LE(42, 0)
  fixed[8] = 1
  fixed.writeUInt16LE(status.length, 11)
  return Buffer.concat([fixed, status, Buffer.from('d\0'), Buffer.from(sql)])
}

function mariadbGtid(sequence: number, flags: number): Buffer {
  const body = Buffer.alloc(19)
  body.writeBigUInt64LE(BigInt(sequence), 0)
  body.writeUInt32LE(5, 8)
  body[12] = flags
  return body
}

test('an event is encoded with its size and checksum, and read back', () => {
  const event = encodeEvent(header(eventType.xid), Buffer.from('12345678'), true)
  assert.equal(decodeHeader(event).sizeBytes, event.length)
  assert.equal(checksumHolds(event), true)
  for (let bit = 0; bit < event.length * 8; bit++) {
    const broken = Buffer.from(event)
    broken[bit >> 3] = (broken[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    assert.equal(checksumHolds(broken), false)
  }
  for (let size = 0; size < 19; size++) {
    assert.throws(
      () => decodeHeader(event.subarray(0, size)),
      (error) => isFault(error, 'protocol'),
    )
  }
})

test('transactions end where the log says so', () => {
  const finder = new CommitFinder()
  const take = (type: number, body?: Buffer) => finder.take(header(type), body)?.id
  // MariaDB: the GTID event opens, XID closes; a standing-alone statement closes its own group.
  assert.equal(take(eventType.mariadbGtid, mariadbGtid(7, 0)), undefined)
  assert.equal(finder.idle, false)
  assert.equal(take(eventType.query, query('insert into t values (1)')), undefined)
  assert.equal(take(eventType.xid), '5-3-7')
  assert.equal(finder.idle, true)
  take(eventType.mariadbGtid, mariadbGtid(8, 1))
  assert.equal(take(eventType.query, query('create table x (a int)')), '5-3-8')
  // MySQL without GTIDs: BEGIN opens, COMMIT of a table without transactions closes.
  assert.equal(take(eventType.query, query('BEGIN')), undefined)
  assert.equal(take(eventType.query, query('savepoint a')), undefined)
  assert.equal(take(eventType.query, query('COMMIT')), '')
  assert.equal(take(eventType.query, query('drop table y')), '')
  // XA: prepared is one group, decided another.
  take(eventType.query, query("XA START X'61',X'',1"))
  assert.equal(take(eventType.query, query("XA END X'61',X'',1")), undefined)
  assert.equal(take(eventType.xaPrepare), '')
  assert.equal(take(eventType.query, query("XA COMMIT X'61',X'',1")), '')
})

test('a MySQL GTID event tells its commit time in microseconds', () => {
  const body = Buffer.alloc(42 + 7)
  body.fill(0x11, 1, 17)
  body.writeBigUInt64LE(9n, 17)
  body[25] = 2
  const timeUs = 1_700_000_000_123_456n
  body.writeUIntLE(Number(timeUs & 0xffffffffffffn), 42, 6)
  body[48] = Number(timeUs >> 48n)
  assert.deepEqual(decodeGtid(body), {
    id: '11111111-1111-1111-1111-111111111111:9',
    timeUs,
    standalone: false,
  })
})

test('a statement keeps the settings of its session', () => {
  const flags = Buffer.from([0, 0, 0, 0, 0])
  flags.writeUInt32LE(1 << 26, 1)
  const mode = Buffer.from([1, 4, 0, 0, 0, 0, 0, 0, 0])
  const zone = Buffer.from([5, 6, ...Buffer.from('+05:00')])
  const micro = Buffer.from([13, 0x40, 0xe2, 0x01])
  const event = decodeQuery(
    query('select 1', Buffer.concat([flags, mode, zone, micro])),
    eventType.query,
  )
  const { assignments } = statementSettings(header(eventType.query), event, 'mysql', new Map())
  assert.ok(assignments.includes('@@session.foreign_key_checks = 0'))
  assert.ok(assignments.includes('@@session.unique_checks = 1'))
  assert.ok(assignments.includes('@@session.sql_mode = 4'))
  assert.ok(assignments.includes("@@session.time_zone = '+05:00'"))
  assert.ok(assignments.includes('timestamp = 100.123456'))
  assert.ok(assignments.includes('@@session.pseudo_thread_id = 42'))
})

test('user variables and packed decimals are written as SQL', () => {
  const name = Buffer.from([1, 0, 0, 0, 0x61])
  const value = Buffer.concat([name, Buffer.from([0, 0, 45, 0, 0, 0, 2, 0, 0, 0, 0xc3, 0xbc])])
  const collations = new Map([[45, { name: 'utf8mb4_general_ci', charset: 'utf8mb4' }]])
  assert.equal(
    userVariable(value, collations),
    "SET @`a` := _utf8mb4 X'c3bc' COLLATE utf8mb4_general_ci",
  )
  assert.equal(
    userVariable(Buffer.concat([name, Buffer.from([1])]), collations),
    'SET @`a` := NULL',
  )
  // 1234567890.1234 and its negative, precision 14, scale 4, from the manual's own example.
  assert.equal(
    decodeDecimal(Buffer.from([14, 4, 0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2])),
    '1234567890.1234',
  )
  assert.equal(
    decodeDecimal(Buffer.from([14, 4, 0x7e, 0xf2, 0x04, 0xc7, 0x2d, 0xfb, 0x2d])),
    '-1234567890.1234',
  )
})
