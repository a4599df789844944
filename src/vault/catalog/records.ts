import type { Position } from '#change'
import { Fields } from '../fields.ts'

/** A source that the vault knows: one record of the catalog a change. */
export type SourceRecord = {
  readonly name: string
  readonly engine: string
  readonly flavor: string
  readonly version: string
  /** Where it was reached last: no credentials in it. */
  readonly url: string
  readonly recordedMs: number
}

/** A base backup that a restore can start from. `facts` is the engine's record, opaque to the vault. */
export type BaseRecord = {
  readonly source: string
  /** A name the user may give in `--at`. */
  readonly name: string
  readonly snapshot: string
  readonly first: Position
  readonly consistent: Position
  readonly consistentUs: bigint
  readonly facts: unknown
  readonly recordedMs: number
}

/** A known hole: the log between the two positions is lost for good. */
export type GapRecord = {
  readonly source: string
  readonly after: Position
  readonly before: Position | undefined
  readonly said: string
  readonly recordedMs: number
}

/** Log that was let go on purpose: what is missing up to that number is no loss. Recorded before anything is removed. */
export type TrimRecord = {
  readonly source: string
  /** What lies before it is needed by no base. */
  readonly before: Position
  /** Number of the last part that goes. */
  readonly sequence: number
  readonly recordedMs: number
}

/** A verified restore. */
export type ProofRecord = {
  readonly source: string
  readonly base: string
  /** What was restored to, in the words of `--at`, and what was reached. */
  readonly target: string
  readonly reached: Position
  readonly reachedUs: bigint | undefined
  readonly ok: boolean
  readonly checks: readonly { readonly name: string; readonly ok: boolean; readonly said: string }[]
  readonly tookMs: number
  readonly recordedMs: number
}

/** How a kind of record is read back from the fields of its JSON. */
export type Decoder<T> = (fields: Fields) => T

export const decodeSource: Decoder<SourceRecord> = (fields) => ({
  name: fields.text('name'),
  engine: fields.text('engine'),
  flavor: fields.text('flavor'),
  version: fields.text('version'),
  url: fields.text('url'),
  recordedMs: fields.count('recordedMs'),
})

export const decodeBase: Decoder<BaseRecord> = (fields) => ({
  source: fields.text('source'),
  name: fields.text('name'),
  snapshot: fields.hex('snapshot', 32),
  first: decodePosition(fields.object('first')),
  consistent: decodePosition(fields.object('consistent')),
  consistentUs: fields.bigint('consistentUs'),
  facts: fields.raw('facts'),
  recordedMs: fields.count('recordedMs'),
})

export const decodeGap: Decoder<GapRecord> = (fields) => ({
  source: fields.text('source'),
  after: decodePosition(fields.object('after')),
  before: fields.optional('before', (f, name) => decodePosition(f.object(name))),
  said: fields.text('said'),
  recordedMs: fields.count('recordedMs'),
})

export const decodeTrim: Decoder<TrimRecord> = (fields) => ({
  source: fields.text('source'),
  before: decodePosition(fields.object('before')),
  sequence: fields.count('sequence'),
  recordedMs: fields.count('recordedMs'),
})

export const decodeProof: Decoder<ProofRecord> = (fields) => ({
  source: fields.text('source'),
  base: fields.text('base'),
  target: fields.text('target'),
  reached: decodePosition(fields.object('reached')),
  reachedUs: fields.optional('reachedUs', (f, name) => f.bigint(name)),
  ok: fields.flag('ok'),
  checks: fields.list('checks').map((check) => decodeCheck(Fields.of(check, 'a check of a proof'))),
  tookMs: fields.count('tookMs'),
  recordedMs: fields.count('recordedMs'),
})

function decodeCheck(fields: Fields): ProofRecord['checks'][number] {
  return { name: fields.text('name'), ok: fields.flag('ok'), said: fields.text('said') }
}

function decodePosition(fields: Fields): Position {
  return { history: fields.text('history'), at: fields.text('at') }
}
