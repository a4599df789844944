import { crc32 } from 'node:zlib'
import { Reader, Writer } from '#base/bytes'
import { Fault } from '#base/faults'
import type { Commit, LogBlock } from '#change'

/**
 * A record of the journal: `crc32` of all that follows it, sizes of the two parts (all u32, little endian), the block's
 * facts as JSON, its native bytes. A record that was cut by a crash fails its sum, and so does one of zeroes.
 */
export const recordHeadBytes = 12
const factsBytesMax = 16 * 2 ** 20
const blockBytesMax = 2 ** 30

export type RecordHead = {
  readonly crc: number
  readonly factsBytes: number
  readonly blockBytes: number
}

/** The three parts of a record, to be written one behind the other. */
export function encodeRecord(
  block: LogBlock,
): readonly [head: Buffer, facts: Buffer, bytes: Buffer] {
  const { bytes, commits, kind: _kind, ...rest } = block
  const plain = commits.map(({ at, timeUs, id }) => [at, timeUs.toString(), id])
  const facts = Buffer.from(JSON.stringify({ ...rest, commits: plain }))
  const sizes = new Writer(8).u32le(facts.length).u32le(bytes.length).done()
  const crc = crc32(bytes, crc32(facts, crc32(sizes)))
  return [new Writer(recordHeadBytes).u32le(crc).bytes(sizes).done(), facts, bytes]
}

/** Reads a record's head; undefined when it cannot be one. */
export function decodeHead(bytes: Buffer): RecordHead | undefined {
  if (bytes.length < recordHeadBytes) return undefined
  const reader = new Reader(bytes, 'a journal record')
  const head = { crc: reader.u32le(), factsBytes: reader.u32le(), blockBytes: reader.u32le() }
  const plausible =
    head.factsBytes > 0 && head.factsBytes <= factsBytesMax && head.blockBytes <= blockBytesMax
  return plausible ? head : undefined
}

/** Checks and decodes the body behind a head; undefined when the sum does not hold. `bytes` stays a view of `body`. */
export function decodeBody(head: RecordHead, body: Buffer): LogBlock | undefined {
  const sizes = new Writer(8).u32le(head.factsBytes).u32le(head.blockBytes).done()
  if (crc32(body, crc32(sizes)) !== head.crc) return undefined
  const facts = JSON.parse(body.toString('utf8', 0, head.factsBytes)) as Facts
  const commits = facts.commits.map(
    ([at, timeUs, id]): Commit => ({ at, timeUs: BigInt(timeUs), id }),
  )
  return { kind: 'block', ...facts, commits, bytes: body.subarray(head.factsBytes) }
}

type Facts = Omit<LogBlock, 'kind' | 'bytes' | 'commits'> & {
  readonly commits: readonly (readonly [at: string, timeUs: string, id: string])[]
}

/** The fault of a record whose sum does not hold where one must. */
export function corruptRecord(path: string, offset: number): Fault {
  return new Fault('corrupt', `read journal ${path}: the record at ${offset} is damaged`, {
    hint: 'Move the state directory away and start again: capture goes on from what the vault has.',
  })
}
