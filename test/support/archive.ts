import { createHash } from 'node:crypto'
import path from 'node:path'
import { silentLog } from '#base/log'
import type { Commit, LogBlock } from '#change'
import type { Storage } from '#storage'
import type { LogSpan } from '#vault'
import { createIdentity } from '../../src/vault/archive/age/keys.ts'
import type { Holder } from '../../src/vault/archive/holder.ts'
import type { Reading, Sealing } from '../../src/vault/archive/object.ts'
import { readIndex } from '../../src/vault/archive/log-index.ts'
import { openReader } from '../../src/vault/archive/reader.ts'
import { readSpans } from '../../src/vault/archive/spans.ts'
import type { WriterOptions } from '../../src/vault/archive/writer.ts'
import { createSigner, Keyring, publicText } from '../../src/vault/signing.ts'
import { ManualTime } from './manual-time.ts'

export const source = 'shop'

/** Keys of a vault with one archiver. */
export class VaultKeys {
  readonly identity = createIdentity()
  readonly signer = createSigner()
  readonly keyring = new Keyring()
  readonly sealing: Sealing
  readonly reading: Reading

  constructor() {
    this.keyring.add(publicText(this.signer), { kind: 'archiver', name: 'test' })
    const vault = 'vault-1'
    this.sealing = { vault, recipients: [this.identity.recipient], signer: this.signer }
    this.reading = { vault, keyring: this.keyring, identities: [this.identity] }
  }
}

/** A host of its own: nothing tells it who of the others is dead, but it knows itself again. */
function hostHolder(name: string): Holder {
  return {
    text: name,
    isDead: ({ holder }) => holder === name,
    begin: () => undefined,
    end: () => undefined,
  }
}

/** Options of a writer on a clock that stands still. */
export function writerOptions(
  keys: VaultKeys,
  storage: Storage,
  folder: string,
  more: Partial<WriterOptions> = {},
): WriterOptions {
  return {
    storage,
    source,
    sealing: keys.sealing,
    trust: keys.reading,
    spoolFolder: path.join(folder, 'spool'),
    holder: hostHolder(folder),
    log: silentLog,
    time: new ManualTime(),
    ...more,
  }
}

/** A log of numbered bytes: a source of blocks that a test knows the truth of. */
export class FakeLog {
  readonly segmentBytes: number
  readonly history: string
  /** Which microsecond a commit ends in: a second apart, unless told. */
  readonly timeUs: (commit: number) => bigint

  constructor(
    options: {
      readonly segmentBytes?: number | undefined
      readonly history?: string | undefined
      readonly timeUs?: ((commit: number) => bigint) | undefined
    } = {},
  ) {
    this.segmentBytes = options.segmentBytes ?? 1000
    this.history = options.history ?? 'h1'
    this.timeUs = options.timeUs ?? ((commit) => BigInt(commit) * 1_000_000n)
  }

  segment(at: number): string {
    return `seg-${String(Math.floor(at / this.segmentBytes)).padStart(6, '0')}`
  }

  /** The block of bytes `[from, to)` of the whole log, within one segment; a commit ends every hundred bytes. */
  block(from: number, to: number): LogBlock {
    const offset = from % this.segmentBytes
    const commits: Commit[] = []
    for (let n = Math.floor(from / 100) + 1; n * 100 <= to; n++) {
      commits.push({ at: position(n * 100), timeUs: this.timeUs(n), id: `tx${n}` })
    }
    return {
      kind: 'block',
      history: this.history,
      segment: this.segment(from),
      offset,
      bytes: this.bytes(from, to),
      first: position(from),
      next: position(to),
      commits,
      closes: to % this.segmentBytes === 0,
    }
  }

  /** Blocks of `size` bytes at most from one byte of the log to another. */
  *blocks(from: number, to: number, size = 170): Generator<LogBlock> {
    for (let at = from; at < to; ) {
      const segmentEnd = at - (at % this.segmentBytes) + this.segmentBytes
      const end = Math.min(to, at + size, segmentEnd)
      yield this.block(at, end)
      at = end
    }
  }

  bytes(from: number, to: number): Buffer {
    const bytes = Buffer.alloc(to - from)
    for (let at = from; at < to; at++)
      bytes[at - from] = this.#page(Math.floor(at / 32))[at % 32] ?? 0
    return bytes
  }

  readonly #pages = new Map<number, Buffer>()

  #page(number: number): Buffer {
    let page = this.#pages.get(number)
    if (!page) {
      page = createHash('sha256')
        .update(`${this.history} ${number >> 2}`)
        .digest()
      this.#pages.set(number, page)
    }
    return page
  }
}

export function position(at: number): string {
  return String(at).padStart(12, '0')
}

export async function collect(pieces: AsyncIterable<Buffer> | undefined): Promise<Buffer> {
  const all: Buffer[] = []
  for await (const piece of pieces ?? []) all.push(piece)
  return Buffer.concat(all)
}

const { signal } = new AbortController()

/** The whole archive from one byte of its first history on, segment after segment. */
export async function readBack(keys: VaultKeys, storage: Storage, from = 0): Promise<Buffer> {
  const reader = await openReader({ storage, source, reading: keys.reading, signal })
  const all: Buffer[] = []
  const first = { history: 'h1', at: position(from) }
  for await (const { segment, history } of reader.segments(first, { signal })) {
    all.push(await collect(await reader.read(segment, { signal, history })))
  }
  return Buffer.concat(all)
}

export async function spansOf(keys: VaultKeys, storage: Storage): Promise<LogSpan[]> {
  const index = await readIndex(storage, source, keys.reading, signal)
  return readSpans({ storage, source, trust: keys.reading }, index, signal)
}
