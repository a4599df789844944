import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import type { LogReader } from '#change'
import { checksumSize, type EventHeader, eventType, headerSize, magic } from './event.ts'
import { encodeEvent, readEvents } from './stream.ts'
import { binlogText } from './text.ts'

function header(type: number): EventHeader {
  return { type, timestamp: 77, serverId: 1, sizeBytes: 0, nextPosition: 0, flags: 0 }
}

function format(): Buffer {
  const body = Buffer.alloc(2 + 50 + 4 + 1 + 40 + 1)
  body.writeUInt16LE(4, 0)
  body.write('9.7.0', 2)
  body[56] = 19
  body[body.length - 1] = 1
  return encodeEvent(header(eventType.formatDescription), body, true)
}

const rowsType = 30
const parts = [
  magic,
  format(),
  encodeEvent(header(eventType.xid), Buffer.from('12345678'), true),
  encodeEvent(header(rowsType), Buffer.alloc(9 * 1024 * 1024, 'r'), true),
  encodeEvent(header(eventType.xid), Buffer.from('87654321'), true),
]
const file = Buffer.concat(parts)

function reader(bytes: Buffer, complete: boolean, pieceBytes: number): LogReader {
  return {
    async *segments() {
      yield {
        history: 'h',
        segment: 'b.000001',
        first: '0000000001.000000000000',
        next: '0000000002.000000000000',
        sizeBytes: bytes.length,
        complete,
      }
    },
    async read() {
      return (async function* () {
        for (let at = 0; at < bytes.length; at += pieceBytes)
          yield bytes.subarray(at, at + pieceBytes)
      })()
    },
  }
}

const signal = new AbortController().signal

async function types(
  log: LogReader,
  at = '0000000001.000000000000',
  pieces = false,
): Promise<number[]> {
  const found: number[] = []
  const options = { signal, wants: () => true, pieces }
  for await (const event of readEvents(log, { history: 'h', at }, options))
    found.push(event.header.type)
  return found
}

test('events come in order however the bytes are cut, and those before the position are passed over', async () => {
  const all = [eventType.formatDescription, eventType.xid, rowsType, eventType.xid]
  for (const size of [1_000_003, 65_536, file.length]) {
    assert.deepEqual(await types(reader(file, true, size)), all)
    assert.deepEqual(await types(reader(file, true, size), undefined, true), all)
  }
  const behind = magic.length + (parts[1]?.length ?? 0) + (parts[2]?.length ?? 0)
  const at = `0000000001.${String(behind).padStart(12, '0')}`
  assert.deepEqual(await types(reader(file, true, 65_536), at), [
    eventType.formatDescription,
    rowsType,
    eventType.xid,
  ])
})

test('an open tail may end inside an event, a complete segment may not', async () => {
  const cut = file.subarray(0, file.length - 5)
  assert.deepEqual(await types(reader(cut, false, 65_536)), [
    eventType.formatDescription,
    eventType.xid,
    rowsType,
  ])
  await assert.rejects(types(reader(cut, true, 65_536)), (error) => isFault(error, 'corrupt'))
})

test('a flipped bit in a large event is found before its last piece is given out', async () => {
  const broken = Buffer.from(file)
  const at = file.length - 40
  broken[at - 4_000_000] = 0
  await assert.rejects(types(reader(broken, true, 65_536)), (error) => isFault(error, 'corrupt'))
  const options = { signal, wants: () => true, pieces: true }
  let given = 0
  await assert.rejects(
    async () => {
      for await (const event of readEvents(
        reader(broken, true, 65_536),
        { history: 'h', at: '0000000001.000000000000' },
        options,
      )) {
        for await (const piece of event.large?.pieces() ?? []) given += piece.length
      }
    },
    (error) => isFault(error, 'corrupt'),
  )
  assert.ok(given < 9 * 1024 * 1024 + headerSize)
})

test('a large event in pieces gives the statement that the whole one would', async () => {
  const map = encodeEvent(header(eventType.tableMap), Buffer.from('a table map'), true)
  const event = encodeEvent(header(rowsType), Buffer.alloc(100_001, 'q'), true)
  const plain = event.subarray(0, event.length - checksumSize)
  for (const cut of [headerSize + 8, 1000, 33_333]) {
    const rest = (async function* () {
      for (let at = cut; at < plain.length; at += 7919) yield plain.subarray(at, at + 7919)
    })()
    const { sizeBytes, text } = binlogText(
      {
        maps: [map],
        head: plain.subarray(0, cut),
        event: { sizeBytes: event.length },
        checksums: true,
      },
      rest,
    )
    const got: Buffer[] = []
    for await (const piece of text) got.push(piece)
    const whole = Buffer.concat(got)
    assert.equal(whole.length, sizeBytes)
    assert.equal(whole.toString(), `BINLOG '${Buffer.concat([map, event]).toString('base64')}'`)
  }
})
