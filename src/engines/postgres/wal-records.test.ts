import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { WalWalker, type WalMark } from './wal-records.kernel.ts'

const page = 8192
const segment = 1 << 20
const first = 0x1000000n

/** Numbers that look random and are the same each time. */
function numbers(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    return (state >>> 8) % below
  }
}

type Made = {
  readonly bytes: Buffer
  readonly marks: readonly Omit<WalMark, 'end'>[]
  readonly end: bigint
}

/** Writes records into pages as the server does: aligned, cut at page borders, with page headers in between. */
class WalWriter {
  readonly #parts: Buffer[] = []
  #size = 0
  marks: Omit<WalMark, 'end'>[] = []

  get lsn(): bigint {
    return first + BigInt(this.#size)
  }

  #push(bytes: Buffer): void {
    this.#parts.push(bytes)
    this.#size += bytes.length
  }

  #pageHeader(left: number): void {
    const long = this.#size % segment === 0
    const header = Buffer.alloc(long ? 40 : 24)
    header.writeUInt16LE(0xd116, 0)
    header.writeUInt16LE((left > 0 ? 1 : 0) | (long ? 2 : 0), 2)
    header.writeUInt32LE(left, 16)
    this.#push(header)
  }

  /** Appends a record and returns where it began. */
  append(record: Buffer): bigint {
    this.#push(Buffer.alloc((8 - (this.#size % 8)) % 8))
    if (this.#size % page === 0) this.#pageHeader(0)
    const start = this.lsn
    for (let at = 0; at < record.length; ) {
      if (this.#size % page === 0) this.#pageHeader(record.length - at)
      const take = Math.min(record.length - at, page - (this.#size % page))
      this.#push(record.subarray(at, at + take))
      at += take
    }
    return start
  }

  done(): Made {
    const bytes = Buffer.concat(this.#parts)
    return { bytes, marks: this.marks, end: first + BigInt(bytes.length) }
  }
}

function record(rmgr: number, info: number, xid: number, data: Buffer): Buffer {
  const long = data.length > 255
  const head = Buffer.alloc(24 + (long ? 5 : 2))
  head.writeUInt32LE(head.length + data.length, 0)
  head.writeUInt32LE(xid, 4)
  head.writeUInt8(info, 16)
  head.writeUInt8(rmgr, 17)
  head.writeUInt8(long ? 254 : 255, 24)
  if (long) head.writeUInt32LE(data.length, 25)
  else head.writeUInt8(data.length, 25)
  return Buffer.concat([head, data])
}

function commitData(timeUs: bigint, more = 0): Buffer {
  const data = Buffer.alloc(8 + more)
  data.writeBigInt64LE(timeUs - 946_684_800_000_000n, 0)
  return data
}

function makeLog(seed: number): Made {
  const random = numbers(seed)
  const writer = new WalWriter()
  for (let n = 0; n < 600; n += 1) {
    const timeUs = 1_700_000_000_000_000n + BigInt(n * 1000 + random(1000))
    const kind = random(10)
    if (kind === 0) {
      const start = writer.append(
        record(1, 0, n + 700, commitData(timeUs, random(2) * random(20_000))),
      )
      writer.marks.push({ kind: 'commit', start, timeUs, id: String(n + 700) })
    } else if (kind === 1) {
      const name = Buffer.alloc(72)
      commitData(timeUs).copy(name)
      name.write(`point ${n}`, 8)
      const start = writer.append(record(0, 0x70, 0, name))
      writer.marks.push({ kind: 'point', start, timeUs, id: `point ${n}` })
    } else if (kind === 2) {
      const text = String(timeUs)
      const message = Buffer.alloc(24)
      message.writeBigUInt64LE(8n, 8)
      message.writeBigUInt64LE(BigInt(text.length), 16)
      const start = writer.append(
        record(21, 0, 0, Buffer.concat([message, Buffer.from(`redoubt\0${text}`)])),
      )
      writer.marks.push({ kind: 'beat', start, timeUs, id: '' })
    } else {
      // An abort, a message of somebody else, pages and more: none of them is a mark.
      const rmgr = [1, 21, 10, 11, 2][random(5)] ?? 10
      const data = Buffer.alloc(40 + random(kind === 3 ? 30_000 : 300), 1)
      writer.append(record(rmgr, rmgr === 1 ? 0x20 : 0, n, data))
    }
  }
  return writer.done()
}

function walk(bytes: Buffer, piece: () => number): { marks: WalMark[]; walker: WalWalker } {
  const walker = new WalWalker(first, segment)
  const marks: WalMark[] = []
  for (let at = 0; at < bytes.length; ) {
    const size = piece()
    marks.push(...walker.feed(bytes.subarray(at, at + size)))
    at += size
  }
  return { marks, walker }
}

test('every mark is found once, whatever the records and wherever the bytes are cut', () => {
  for (let seed = 1; seed <= 8; seed += 1) {
    const made = makeLog(seed)
    const random = numbers(seed)
    for (const piece of [() => made.bytes.length, () => 1 + random(40), () => 1 + random(9000)]) {
      const { marks, walker } = walk(made.bytes, piece)
      assert.deepEqual(
        marks.map(({ kind, start, timeUs, id }) => ({ kind, start, timeUs, id })),
        made.marks,
        `seed ${seed}`,
      )
      assert.ok(made.end - walker.whole < 8n)
    }
  }
})

test('whole says up to where all records are complete', () => {
  const made = makeLog(3)
  const starts = made.marks.map((mark) => mark.start)
  for (const start of starts.slice(0, 50)) {
    const cut = Number(start - first) + 20
    const { walker } = walk(made.bytes.subarray(0, cut), () => 500)
    assert.equal(walker.whole, start)
  }
})

test('zeroes end the log, until the next segment', () => {
  const made = makeLog(4)
  const cut = Number((made.marks[20]?.start ?? 0n) - first)
  const zeroed = Buffer.concat([made.bytes.subarray(0, cut), Buffer.alloc(segment - cut)])
  const { marks, walker } = walk(zeroed, () => 4000)
  assert.equal(marks.length, 20)
  assert.equal(walker.whole, first + BigInt(cut))
})

test('behind a switch the log goes on in the next segment', () => {
  const writer = new WalWriter()
  writer.append(record(0, 0x40, 0, Buffer.alloc(0)))
  const { bytes } = writer.done()
  const switched = Buffer.concat([bytes, Buffer.alloc(segment - bytes.length)])
  const half = walk(switched.subarray(0, 300_000), () => 4000).walker
  assert.equal(half.whole, first + 300_000n)
  const { walker } = walk(switched, () => 4000)
  assert.equal(walker.whole, first + BigInt(segment))
})

test('a walk that starts in the middle passes over the rest of the record before', () => {
  const made = makeLog(5)
  const from = page * 3
  const walker = new WalWalker(first + BigInt(from), segment)
  const marks = walker.feed(made.bytes.subarray(from))
  const expected = made.marks.filter((mark) => mark.start >= first + BigInt(from))
  assert.deepEqual(
    marks.map((mark) => mark.start),
    expected.map((mark) => mark.start),
  )
  assert.throws(
    () => new WalWalker(first + 8n, segment),
    (error) => isFault(error, 'protocol'),
  )
})

test('changed bytes give other marks or a Fault, never another failure', () => {
  const made = makeLog(6)
  const random = numbers(99)
  let faults = 0
  for (let round = 0; round < 400; round += 1) {
    const bytes = Buffer.from(made.bytes)
    for (let n = 0; n < 8; n += 1) bytes[random(bytes.length)] = random(256)
    const near = Number((made.marks[random(made.marks.length)]?.start ?? first) - first)
    bytes[near + random(40)] = random(256)
    try {
      walk(bytes, () => 10_000)
    } catch (error) {
      assert.ok(isFault(error, 'corrupt'), String(error))
      faults += 1
    }
  }
  assert.ok(faults > 20, `${faults} faults`)
})
