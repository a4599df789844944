import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import {
  collect,
  FakeLog,
  position,
  source,
  VaultKeys,
  writerOptions,
} from '../../../test/support/archive.ts'
import { ManualTime } from '../../../test/support/manual-time.ts'
import { Scratch } from '../../../test/support/scratch.ts'
import { MemStorage } from '#storage/mem'
import { Crash, withFaults } from '#storage/wrap/fault'
import { checkLog } from './check.ts'
import { copyLog } from './copy.ts'
import { readIndex } from './log-index.ts'
import { openReader } from './reader.ts'
import { readSpans } from './spans.ts'
import { trimLog } from './trim.ts'
import { type LogWriter, openWriter } from './writer.ts'

/** `REDOUBT_MODEL_SEEDS=5000` for the long run; a failure names its seed. */
const seeds = Number(process.env['REDOUBT_MODEL_SEEDS'] ?? 12)
const firstSeed = Number(process.env['REDOUBT_MODEL_FIRST'] ?? 1)
const stepsMax = 60
const segmentBytes = 400
const { signal } = new AbortController()
const keys = new VaultKeys()
const otherKeys = new VaultKeys()

/** What the archive must hold: stretches of one history each, the last one growing. */
type Stretch = { readonly history: string; from: number; to: number; readonly continues: boolean }

/** One archive, driven at random, and what is known of it. */
class World {
  readonly #random: () => number
  readonly #time = new ManualTime()
  readonly #storage = new MemStorage({ now: () => this.#time.now() })
  readonly #copy = new MemStorage({ now: () => this.#time.now() })
  readonly #scratch: Scratch
  readonly #stretches: Stretch[] = []
  #log = new FakeLog({ segmentBytes, history: 'h1' })
  #histories = 1
  #hosts = 0
  #writer: LogWriter | undefined
  #durable = -1

  constructor(seed: number, scratch: Scratch) {
    let state = seed * 7919
    this.#random = () => {
      state = (state * 48_271) % 2_147_483_647
      return state / 2_147_483_647
    }
    this.#scratch = scratch
  }

  async run(): Promise<void> {
    for (let step = 0; step < stepsMax; step++) {
      await this.#step()
      if (step % 15 === 14) await this.#compare()
    }
    await this.#close()
    await this.#compare()
    await this.#compareCopy()
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit)
  }

  async #step(): Promise<void> {
    const dice = this.#random()
    try {
      if (dice < 0.62) await this.#append()
      else if (dice < 0.72) await (await this.#open()).flush({ signal })
      else if (dice < 0.8) await this.#time.advance(this.#below(12_000))
      else if (dice < 0.85) await this.#close()
      else if (dice < 0.9) await this.#newHistory()
      else if (dice < 0.93) await this.#gap()
      else if (dice < 0.96) await this.#trim()
      else await this.#copyOver()
    } catch (error) {
      if (!(error instanceof Crash)) throw error
      await this.#close()
    }
  }

  /** A writer on a store that dies somewhere, or does not. */
  async #open(): Promise<LogWriter> {
    if (this.#writer) return this.#writer
    const crashAt = this.#random() < 0.6 ? this.#below(25) : undefined
    const crashWhen = this.#random() < 0.5 ? 'before' : 'after'
    if (this.#random() < 0.3) {
      // Another host: it waits for the lease of the one before to end, and has none of its spool.
      this.#hosts += 1
      await this.#time.advance(31_000)
    }
    const folder = this.#scratch.join(`host-${this.#hosts}`)
    const store = withFaults(this.#storage, { crashAt, crashWhen })
    const more = { time: this.#time, graceMs: 20_000, partBytesMax: 150 }
    const reading = this.#random() < 0.5 ? keys.reading : undefined
    const options = writerOptions(keys, store, folder, { ...more, reading })
    const writer = await openWriter(options, signal)
    this.#adopt(writer)
    writer.onDurable(({ at }) => {
      this.#durable = Number(at)
    })
    this.#writer = writer
    return writer
  }

  /** What the archive says that it holds must be what was told to be durable, or more of what was appended. */
  #adopt(writer: LogWriter): void {
    const last = this.#stretches.at(-1)
    const end = writer.durable()
    if (!last || this.#durable < 0) {
      if (last && !end) this.#stretches.pop()
      if (!last || !end) return
    }
    assert.ok(end, 'the archive lost everything')
    if (end.history === last.history && Number(end.at) >= last.from) {
      assert.ok(Number(end.at) <= last.to, 'the archive holds more than was appended')
      assert.ok(Number(end.at) >= this.#durable, `${end.at} held, ${this.#durable} were durable`)
      last.to = Number(end.at)
      return
    }
    // Nothing of the newest stretch arrived before the crash.
    assert.ok(this.#durable < 0, 'a durable stretch is gone')
    this.#stretches.pop()
    const before = this.#stretches.at(-1)
    assert.equal(before && position(before.to), end.at)
    this.#log = new FakeLog({ segmentBytes, history: end.history })
  }

  async #append(): Promise<void> {
    const writer = await this.#open()
    const last = this.#stretches.at(-1)
    const from = last?.to ?? 0
    const again = this.#random() < 0.2 ? Math.max(last?.from ?? 0, from - this.#below(300)) : from
    const to = from + 1 + this.#below(500)
    for (const block of this.#log.blocks(again, to, 1 + this.#below(200))) {
      if (!this.#stretches.length) {
        this.#stretches.push({ history: 'h1', from: 0, to: 0, continues: false })
      }
      const stretch = this.#stretches.at(-1)
      assert.ok(stretch)
      // Before the call: a block may be taken in although the call fails.
      stretch.to = Math.max(stretch.to, Number(block.next))
      await writer.append(block, { signal })
    }
  }

  async #newHistory(): Promise<void> {
    const last = this.#stretches.at(-1)
    if (!last) return
    const writer = await this.#open()
    await writer.flush({ signal })
    const end = this.#stretches.at(-1)
    if (!end) return
    this.#histories += 1
    this.#log = new FakeLog({ segmentBytes, history: `h${this.#histories}` })
    const from = end.to - (end.to % segmentBytes)
    this.#durable = -1
    this.#stretches.push({ history: this.#log.history, from, to: from, continues: true })
    await this.#append()
  }

  async #gap(): Promise<void> {
    const last = this.#stretches.at(-1)
    if (!last) return
    const writer = await this.#open()
    await writer.flush({ signal })
    const end = this.#stretches.at(-1)
    if (!end) return
    writer.allowGap()
    const from = end.to + 1 + this.#below(1000)
    this.#durable = -1
    this.#stretches.push({ history: end.history, from, to: from, continues: false })
    await this.#append()
  }

  async #trim(): Promise<void> {
    const stretch = this.#stretches[this.#below(this.#stretches.length)]
    if (!stretch || this.#writer) return
    const at = stretch.from + this.#below(stretch.to - stretch.from)
    const record = async () => undefined
    const options = { storage: this.#storage, source, trust: keys.reading, record, signal }
    await trimLog(options, { history: stretch.history, at: position(at) })
    const [first] = await this.#spans()
    if (!first) return
    while (this.#stretches[0] && this.#stretches[0].history !== first.history) {
      this.#stretches.shift()
    }
    while (this.#stretches[0] && this.#stretches[0].to < Number(first.first)) {
      this.#stretches.shift()
    }
    const kept = this.#stretches[0]
    assert.ok(kept && Number(first.first) <= Math.max(at, kept.from), 'a trim took too much')
    kept.from = Number(first.first)
  }

  async #copyOver(): Promise<void> {
    const reader = await openReader({ ...this.#from(), reading: keys.reading, signal })
    const folder = this.#scratch.join('copy')
    const options = writerOptions(otherKeys, this.#copy, folder, { time: this.#time })
    await using to = await openWriter(options, signal)
    try {
      await copyLog(reader, to, { signal })
    } catch (error) {
      // What the copy lacked was trimmed away in the first vault.
      assert.ok(
        error instanceof Error && /begins later|holds nothing/.test(error.message),
        String(error),
      )
    }
  }

  async #close(): Promise<void> {
    const writer = this.#writer
    this.#writer = undefined
    await writer?.[Symbol.asyncDispose]()
  }

  #from() {
    return { storage: this.#storage, source }
  }

  async #spans() {
    const index = await readIndex(this.#storage, source, keys.reading, signal)
    return readSpans({ ...this.#from(), trust: keys.reading }, index, signal)
  }

  async #compare(): Promise<void> {
    try {
      const writer = await this.#open()
      await writer.settle({ signal })
    } catch (error) {
      if (!(error instanceof Crash)) throw error
      await this.#close()
      return this.#compare()
    }
    const spans = await this.#spans()
    assert.deepEqual(
      spans.map((s) => [s.history, Number(s.first), Number(s.next)]),
      this.#stretches.map((s) => [s.history, s.from, s.to]),
    )
    const checks = { ...this.#from(), reading: keys.reading, readData: true, signal }
    const findings = await checkLog(checks)
    assert.deepEqual(
      findings.filter(({ severity }) => severity === 'damaged'),
      [],
    )
    await compareBytes(this.#storage, keys)
  }

  async #compareCopy(): Promise<void> {
    await compareBytes(this.#copy, otherKeys)
  }
}

/** Every byte of every segment is that of its history. */
async function compareBytes(storage: MemStorage, of: VaultKeys): Promise<void> {
  const reader = await openReader({ storage, source, reading: of.reading, signal })
  const index = await readIndex(storage, source, of.reading, signal)
  for (const [i, { history, segments }] of index.stretches.entries()) {
    const log = new FakeLog({ segmentBytes, history })
    for (const { segment, objects } of segments) {
      const later = index.stretches.slice(i + 1).filter((s) => s.history === history)
      // Of a segment with a hole in it the newest stretch is the one that is read: not without its beginning.
      if (later.some((s) => s.segments.some((one) => one.segment === segment))) continue
      const read = async () => collect(await reader.read(segment, { history, signal }))
      if (objects[0]?.offset !== 0) {
        await assert.rejects(read, (e) => isFault(e, 'gap'))
        continue
      }
      const first = Number(objects[0].first)
      const bytes = await read()
      assert.ok(bytes.equals(log.bytes(first, first + bytes.length)), `${history} ${segment}`)
    }
  }
}

test(`an archive that is driven at random holds what it must, ${seeds} seeds`, async () => {
  for (let seed = firstSeed; seed < firstSeed + seeds; seed++) {
    using scratch = new Scratch()
    try {
      await new World(seed, scratch).run()
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error })
    }
  }
})
