import { Fault } from '#base/faults'

/**
 * A record of the WAL that marks a point in it: a commit, a restore point that somebody named, or a heartbeat of ours.
 * `start` is where its first byte lies, `end` where the next record begins.
 */
export type WalMark = {
  readonly kind: 'commit' | 'point' | 'beat'
  readonly start: bigint
  readonly end: bigint
  /** By the source's clock, microseconds since 1970. */
  readonly timeUs: bigint
  /** The xid of a commit, the name of a restore point; nothing for a heartbeat. */
  readonly id: string
}

// access/xlogrecord.h, access/xlog_internal.h, access/xact.h, catalog/pg_control.h of PostgreSQL 12 to 18.
const pageBytes = 8192
const shortHeaderBytes = 24
const longHeaderBytes = 40
const recordHeaderBytes = 24
const continuedFlag = 0x0001
const longHeaderFlag = 0x0002
const rmgrXlog = 0
const rmgrXact = 1
const rmgrMessage = 21
const segmentSwitch = 0x40
const restorePoint = 0x70
const commitOp = 0x00
const commitPreparedOp = 0x30
/** Of a record that matters so much is kept at most: an xid behind longer lists is not looked for. */
const keptBytesMax = 1 << 20
/** A heartbeat is a small message; larger ones are not looked into. */
const beatBytesMax = 200
const beatPrefix = 'redoubt\0'
const recordBytesMax = 0x3fffffff
/** Microseconds between 1970 and 2000. */
const epochUs = 946_684_800_000_000n

/**
 * Walks the record headers of a WAL stream that is fed in pieces cut anywhere, and finds the marks.
 * It must start at a page border; what is left of a record from the page before is passed over.
 */
export class WalWalker {
  #lsn: bigint
  /** Bytes still missing of the page header, and those that are there. */
  #header = Buffer.alloc(longHeaderBytes)
  #headerFill = 0
  /** Bytes left of the record under way; -1 before the first one is found. */
  #recordLeft = -1
  /** Where the record under way began: an offset from the LSN of the feed that it began in. */
  #recordBase: bigint
  #recordOffset = 0
  #kept: Buffer = Buffer.allocUnsafe(256)
  #keptFill = 0
  #keptWanted = 0
  #padding = 0
  /** The rest of this segment holds nothing. */
  #stopped = false
  /** Where zeroes began instead of a record; nothing once the log goes on. */
  #endedAt: bigint | undefined
  /** The record under way ends its segment: what follows in it is zeroes, and the log goes on in the next one. */
  #switches = false
  readonly #segmentBytes: bigint

  constructor(first: bigint, segmentBytes: number) {
    if (first % BigInt(pageBytes) !== 0n) {
      throw new Fault('protocol', `walk the WAL from ${first}: not the border of a page`)
    }
    this.#lsn = first
    this.#recordBase = first
    this.#segmentBytes = BigInt(segmentBytes)
  }

  /** Where the next byte that is fed belongs. */
  get lsn(): bigint {
    return this.#lsn
  }

  /** Up to here all records are whole: where the one under way began, or else the next one would. */
  get whole(): bigint {
    if (this.#endedAt !== undefined) return this.#endedAt
    const open = this.#recordLeft > 0 || this.#keptWanted > 0
    return open ? this.#recordStart : this.#lsn
  }

  get #recordStart(): bigint {
    return this.#recordBase + BigInt(this.#recordOffset)
  }

  /** Takes the next bytes; returns the marks whose records end in them. */
  feed(bytes: Buffer): WalMark[] {
    const marks: WalMark[] = []
    const base = this.#lsn
    let at = 0
    while (at < bytes.length) {
      if (this.#stopped) {
        at = this.#skipSegment(bytes, at, base)
        continue
      }
      const inPage = Number((base + BigInt(at)) & 8191n)
      if (inPage === 0 || this.#headerFill > 0) {
        at = this.#feedHeader(bytes, at, inPage, base)
        continue
      }
      const pageEnd = Math.min(bytes.length, at + pageBytes - inPage)
      at = this.#feedPage(bytes, at, pageEnd, base, marks)
    }
    this.#lsn = base + BigInt(bytes.length)
    return marks
  }

  // Behind the record of a segment switch there are zeroes to the segment's end, and so there are behind the last
  // record of all.
  #skipSegment(bytes: Buffer, at: number, base: bigint): number {
    const inSegment = (base + BigInt(at)) % this.#segmentBytes
    const left = inSegment === 0n ? 0n : this.#segmentBytes - inSegment
    if (left > bytes.length - at) return bytes.length
    this.#stopped = false
    this.#recordLeft = -1
    this.#padding = 0
    return at + Number(left)
  }

  #feedHeader(bytes: Buffer, at: number, inPage: number, base: bigint): number {
    let from = at
    if (inPage === 0) this.#headerFill = 0
    while (from < bytes.length) {
      const long = this.#headerFill >= 4 && (this.#header.readUInt16LE(2) & longHeaderFlag) !== 0
      const wanted = this.#headerFill < 4 ? 4 : long ? longHeaderBytes : shortHeaderBytes
      if (this.#headerFill === wanted && wanted > 4) break
      const take = Math.min(wanted - this.#headerFill, bytes.length - from)
      bytes.copy(this.#header, this.#headerFill, from, from + take)
      this.#headerFill += take
      from += take
    }
    const long = this.#headerFill >= 4 && (this.#header.readUInt16LE(2) & longHeaderFlag) !== 0
    if (this.#headerFill >= (long ? longHeaderBytes : shortHeaderBytes)) {
      this.#headerFill = 0
      this.#beginPage(base + BigInt(from - (long ? longHeaderBytes : shortHeaderBytes)))
    }
    return from
  }

  #beginPage(first: bigint): void {
    const info = this.#header.readUInt16LE(2)
    const left = this.#header.readUInt32LE(16)
    if (this.#header.readUInt16LE(0) !== 0) this.#endedAt = undefined
    if (this.#header.readUInt16LE(0) === 0) {
      if (this.#recordLeft <= 0) {
        this.#recordBase = first
        this.#recordOffset = 0
      }
      this.#stop()
    } else if ((info & continuedFlag) === 0) {
      // A record cut off by a crash is not continued: the next one stands right behind this header.
      this.#recordLeft = 0
      this.#padding = 0
      this.#keptWanted = 0
    } else if (this.#recordLeft < 0) {
      this.#recordLeft = left
      this.#keptWanted = 0
    }
  }

  #feedPage(bytes: Buffer, from: number, end: number, base: bigint, marks: WalMark[]): number {
    let at = from
    while (at < end) {
      if (this.#stopped) return end
      if (this.#padding > 0) {
        const skip = Math.min(this.#padding, end - at)
        this.#padding -= skip
        at += skip
      } else if (this.#recordLeft > 0) {
        at = this.#feedRecord(bytes, at, end, base, marks)
      } else {
        // Records are aligned to eight bytes, so their length is never split between pages, but between feeds it is.
        at = this.#beginRecord(bytes, at, end, base)
      }
    }
    return at
  }

  #beginRecord(bytes: Buffer, from: number, end: number, base: bigint): number {
    if (this.#keptWanted !== recordHeaderBytes || this.#recordLeft !== 0) {
      this.#recordBase = base
      this.#recordOffset = from
      this.#keptFill = 0
      this.#keptWanted = recordHeaderBytes
      // The common case: the whole header lies here, and the record is none of ours.
      if (end - from >= recordHeaderBytes && this.#pass(bytes, from)) return from
    }
    const take = Math.min(4 - this.#keptFill, end - from)
    bytes.copy(this.#kept, this.#keptFill, from, from + take)
    this.#keptFill += take
    if (this.#keptFill === 4) {
      const size = this.#kept.readUInt32LE(0)
      if (!this.#checkSize(size)) return end
      this.#recordLeft = size - 4
    }
    return from + take
  }

  #stop(): void {
    this.#endedAt ??= this.#recordStart
    this.#stopped = true
    this.#keptWanted = 0
    this.#keptFill = 0
  }

  #pass(bytes: Buffer, from: number): boolean {
    const rmgr = bytes[from + 17]!
    if (rmgr === rmgrXact || rmgr === rmgrXlog || rmgr === rmgrMessage) return false
    const size = bytes.readUInt32LE(from)
    if (!this.#checkSize(size)) return true
    this.#recordLeft = size
    this.#keptWanted = 0
    return true
  }

  #checkSize(size: number): boolean {
    if (size === 0) {
      this.#stop()
      return false
    }
    if (size < recordHeaderBytes || size > recordBytesMax) {
      const where = this.#recordStart.toString(16)
      throw new Fault('corrupt', `walk the WAL: record at ${where} claims ${size} bytes`)
    }
    return true
  }

  #feedRecord(bytes: Buffer, from: number, end: number, base: bigint, marks: WalMark[]): number {
    let take = Math.min(this.#recordLeft, end - from)
    if (this.#keptWanted > 0) {
      take = Math.min(take, this.#keptWanted - this.#keptFill)
      this.#keep(bytes, from, take)
    }
    this.#recordLeft -= take
    const at = from + take
    if (this.#keptWanted === recordHeaderBytes && this.#keptFill === recordHeaderBytes) {
      this.#switches = this.#kept[17]! === rmgrXlog && (this.#kept[16]! & 0xf0) === segmentSwitch
      this.#keptWanted = isMark(this.#kept) ? Math.min(this.#kept.readUInt32LE(0), keptBytesMax) : 0
    }
    if (this.#keptWanted > recordHeaderBytes && this.#keptFill === this.#keptWanted) {
      // Long records are kept in part only; their rest is passed over.
      if (this.#recordLeft > 0) {
        const whole = Math.min(this.#recordLeft, end - at)
        this.#recordLeft -= whole
        return this.#recordLeft === 0 ? this.#finish(at + whole, base, marks) : at + whole
      }
    }
    return this.#recordLeft === 0 ? this.#finish(at, base, marks) : at
  }

  #finish(at: number, base: bigint, marks: WalMark[]): number {
    const end = base + BigInt(at)
    this.#padding = Number((8n - (end & 7n)) & 7n)
    if (this.#switches) {
      this.#switches = false
      this.#stopped = true
    }
    if (this.#keptWanted > recordHeaderBytes) {
      const size = this.#keptFill
      const after = end + BigInt(this.#padding)
      const mark = readMark(this.#kept.subarray(0, size), this.#recordStart, after)
      if (mark) marks.push(mark)
    }
    this.#keptWanted = 0
    return at
  }

  #keep(bytes: Buffer, from: number, size: number): void {
    if (this.#keptFill + size > this.#kept.length) {
      const grown = Buffer.allocUnsafe(Math.max(this.#kept.length * 2, this.#keptFill + size))
      this.#kept.copy(grown, 0, 0, this.#keptFill)
      this.#kept = grown
    }
    bytes.copy(this.#kept, this.#keptFill, from, from + size)
    this.#keptFill += size
  }
}

function isMark(header: Buffer): boolean {
  const info = header[16]!
  const rmgr = header[17]!
  if (rmgr === rmgrXlog) return (info & 0xf0) === restorePoint
  if (rmgr === rmgrMessage) return header.readUInt32LE(0) < beatBytesMax
  const op = info & 0x70
  return rmgr === rmgrXact && (op === commitOp || op === commitPreparedOp)
}

function readMark(record: Buffer, start: bigint, end: bigint): WalMark | undefined {
  try {
    return decodeMark(record, start, end)
  } catch (error) {
    // A length or a list inside the record that leads out of it.
    if (!(error instanceof RangeError)) throw error
    throw new Fault('corrupt', `walk the WAL: record at ${start.toString(16)} is cut short`, {
      cause: error,
    })
  }
}

function decodeMark(record: Buffer, start: bigint, end: bigint): WalMark | undefined {
  const info = record[16]!
  let at = recordHeaderBytes
  // xlogrecord.h: the origin and the top-level xid come before the main data, each behind an id byte.
  for (;;) {
    const id = record[at]!
    at += 1
    if (id === 253) at += 2
    else if (id === 252) at += 4
    else if (id === 255) {
      at += 1
      break
    } else if (id === 254) {
      at += 4
      break
    } else
      throw new Fault('corrupt', `walk the WAL: record at ${start.toString(16)}: block id ${id}`)
  }
  if (record[17]! === rmgrMessage) return readBeat(record, at, start, end)
  const timeUs = record.readBigInt64LE(at) + epochUs
  if (record[17]! === rmgrXlog) {
    const nameEnd = record.indexOf(0, at + 8)
    return { kind: 'point', start, end, timeUs, id: record.toString('utf8', at + 8, nameEnd) }
  }
  const prepared = (info & 0x70) === commitPreparedOp
  const xid = prepared ? (preparedXid(record, at + 8, info) ?? 0) : record.readUInt32LE(4)
  return { kind: 'commit', start, end, timeUs, id: String(xid) }
}

// replication/message.h: the database, whether transactional, the sizes of prefix and content, then both.
function readBeat(record: Buffer, at: number, start: bigint, end: bigint): WalMark | undefined {
  const prefixSize = Number(record.readBigUInt64LE(at + 8))
  const textAt = at + 24 + prefixSize
  if (record.toString('latin1', at + 24, textAt) !== beatPrefix) return undefined
  const text = record.toString('latin1', textAt)
  if (!/^\d{1,18}$/.test(text)) return undefined
  return { kind: 'beat', start, end, timeUs: BigInt(text), id: '' }
}

// xact.h, "xl_xact_commit": optional parts in this order, each there when its bit is set.
function preparedXid(record: Buffer, from: number, info: number): number | undefined {
  if ((info & 0x80) === 0) return undefined
  const flags = record.readUInt32LE(from)
  let at = from + 4
  const list = (bit: number, itemBytes: number) => {
    if ((flags & bit) === 0 || at + 4 > record.length) return
    at += 4 + record.readInt32LE(at) * itemBytes
  }
  if ((flags & 1) !== 0) at += 8
  list(2, 4)
  list(4, 12)
  // Dropped statistics (15 on) have items of 12 bytes, from 18 on of 16: the lengths must come out even.
  const statsAt = at
  for (const itemBytes of [12, 16]) {
    at = statsAt
    list(256, itemBytes)
    list(8, 16)
    if ((flags & 16) !== 0 && at + 4 <= record.length && plausible(record, at, flags)) {
      return record.readUInt32LE(at)
    }
  }
  return undefined
}

// Behind the xid come its GID as a string and the origin of 16 bytes, where their bits say so, and then the end.
function plausible(record: Buffer, at: number, flags: number): boolean {
  let end = at + 4
  if ((flags & 128) !== 0) {
    const zero = record.indexOf(0, end)
    if (zero < 0) return false
    end = zero + 1
  }
  if ((flags & 32) !== 0) end += 16
  return end === record.length
}
