import { Fault } from '#base/faults'
import { parseLsn } from '../lsn.ts'
import type { Wire } from './wire.ts'

// https://www.postgresql.org/docs/current/protocol-replication.html
const walDataHeadBytes = 25
/** Microseconds between 1970 and 2000. */
const epochUs = 946_684_800_000_000n

/** A message of a physical replication stream. */
export type StreamMessage =
  | {
      readonly kind: 'wal'
      readonly first: bigint
      /** How far the server's log reached when it sent this. */
      readonly serverEnd: bigint
      readonly sentUs: bigint
      readonly bytes: Buffer
    }
  | {
      readonly kind: 'keepalive'
      readonly serverEnd: bigint
      readonly sentUs: bigint
      readonly wantsReply: boolean
    }

/** Reads the content of a CopyData message of a physical stream. */
export function decodeStreamMessage(body: Buffer): StreamMessage {
  const type = body[0]
  if (type === 0x77 && body.length >= walDataHeadBytes) {
    return {
      kind: 'wal',
      first: body.readBigUInt64BE(1),
      serverEnd: body.readBigUInt64BE(9),
      sentUs: body.readBigInt64BE(17) + epochUs,
      bytes: body.subarray(walDataHeadBytes),
    }
  }
  if (type === 0x6b && body.length >= 18) {
    return {
      kind: 'keepalive',
      serverEnd: body.readBigUInt64BE(1),
      sentUs: body.readBigInt64BE(9) + epochUs,
      wantsReply: body[17] === 1,
    }
  }
  throw new Fault(
    'protocol',
    `read the replication stream: message ${type} of ${body.length} bytes`,
  )
}

export type StandbyStatus = {
  readonly written: bigint
  readonly flushed: bigint
  readonly nowMs: number
  readonly wantsReply: boolean
}

/**
 * A standby status update. `apply` is told as flushed: nothing is ever readable here, and a commit under
 * `synchronous_commit = remote_apply` would otherwise wait for ever.
 */
export function encodeStandbyStatus(status: StandbyStatus): Buffer {
  const body = Buffer.allocUnsafe(34)
  body.write('r', 0, 'latin1')
  body.writeBigUInt64BE(status.written, 1)
  body.writeBigUInt64BE(status.flushed, 9)
  body.writeBigUInt64BE(status.flushed, 17)
  body.writeBigInt64BE(BigInt(Math.round(status.nowMs)) * 1000n - epochUs, 25)
  body.writeUInt8(status.wantsReply ? 1 : 0, 33)
  return body
}

export type SystemIdentity = {
  readonly systemId: string
  readonly timeline: number
  readonly flushed: bigint
}

export async function identifySystem(wire: Wire, signal: AbortSignal): Promise<SystemIdentity> {
  const [rows] = await wire.query('IDENTIFY_SYSTEM', signal, 'identify the system')
  const [systemId, timeline, flushed] = rows?.[0] ?? []
  if (systemId === undefined || timeline === undefined || flushed === undefined) {
    throw new Fault('protocol', 'identify the system: the server sent no row')
  }
  return { systemId, timeline: Number(timeline), flushed: parseLsn(flushed) }
}

/** The size of a WAL file, in bytes. */
export async function walSegmentBytes(wire: Wire, signal: AbortSignal): Promise<number> {
  const [rows] = await wire.query('SHOW wal_segment_size', signal, 'read wal_segment_size')
  const text = rows?.[0]?.[0] ?? ''
  const match = /^(\d+)(MB|GB|kB|B)?$/.exec(text)
  const unit = { B: 1, kB: 1 << 10, MB: 1 << 20, GB: 1 << 30 }[match?.[2] ?? 'B'] ?? 1
  const size = Number(match?.[1]) * unit
  if (!match || size < 1 << 20 || size > 1 << 30 || (size & (size - 1)) !== 0) {
    throw new Fault('protocol', `read wal_segment_size: ${JSON.stringify(text)}`)
  }
  return size
}

/** The history file of a timeline as the server has it. */
export async function timelineHistory(
  wire: Wire,
  timeline: number,
  signal: AbortSignal,
): Promise<string> {
  const [rows] = await wire.query(
    `TIMELINE_HISTORY ${timeline}`,
    signal,
    `read the history of timeline ${timeline}`,
  )
  const text = rows?.[0]?.[1]
  if (text === undefined) throw new Fault('protocol', `read the history of timeline ${timeline}`)
  return text
}
