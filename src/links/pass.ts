import { Bell } from '#base/bell'
import { assert, Fault, isAbort, isFault } from '#base/faults'
import { defaultRetry } from '#base/retry'
import { tasks } from '#base/tasks'
import type { LogBeat, Position } from '#change'
import type { Applier, ApplyLane, ApplyTable, Mark } from '#change/apply'
import type { Batch, Change, ChangeReader, Relation, Transaction } from '#change/batch'
import type { ChangesWork } from './changes.ts'
import { type Group, Lanes } from './lanes.ts'
import { hidesCascade, isBarrier, keysOf, type Part, partsOf, sizeOf, type Work } from './parts.ts'
import type { Ending } from './until.ts'

/** Tries in one lane, where another transaction was in the way; then everything is opened again. */
const triesMax = 6
/** On a source whose changes are not wanted, or that has none, the mark moves so often. */
const markEveryMs = 5000
const ackEveryMs = 250

type Parts = {
  readonly applier: Applier
  readonly reader: ChangeReader
  readonly mark: Mark
  readonly ending: Ending
  /** Ends of large transactions that were read to their end to learn them. */
  readonly ends: Map<string, Position>
}

/** The end of a large transaction is known now: what of it is new can be told when it is read again. */
export class ReadAgain extends Error {
  override readonly name = 'ReadAgain'
}

/** A transaction that comes in pieces. */
type Open = {
  readonly id: string
  /** Where it ends; undefined behind all that the copy brought, where it does not matter. */
  readonly position: Position | undefined
  /** Nothing is written: it is read to learn where it ends. */
  readonly looking: boolean
  rows: number
  conflicts: number
  bytes: number
}

/** One reader's and one applier's life. */
export class ChangePass {
  readonly #work: ChangesWork
  readonly #parts: Parts
  readonly #lanes: Lanes<Work>
  readonly #bells: readonly Bell[]
  /** Wakes the reading: there is room, or everything is on the target. */
  readonly #room = new Bell()
  readonly #stop = new AbortController()
  #tables = new Map<Relation, ApplyTable>()
  #busy = 0
  /** The reader itself uses a lane. */
  #exclusive = false
  /** Nothing of the present history is on the target yet. */
  #fresh = false
  #readAt: string
  #over = false
  #open: Open | undefined
  #history: string
  #markedAt: string
  #markedMs: number
  #ackedMs: number

  constructor(work: ChangesWork, parts: Parts) {
    this.#work = work
    this.#parts = parts
    const { lanes } = parts.applier
    this.#lanes = new Lanes(lanes.length, parts.mark)
    this.#bells = lanes.map(() => new Bell())
    this.#history = parts.mark.low.history
    this.#markedAt = parts.mark.low.at
    this.#readAt = parts.mark.low.at
    this.#markedMs = work.time.monotonicMs()
    this.#ackedMs = Number.NEGATIVE_INFINITY
  }

  /** Until the end that was asked for; what was read by then is on the target. */
  async run(): Promise<void> {
    const { applier } = this.#parts
    await tasks(this.#work.signal, async (t) => {
      for (const [index, lane] of applier.lanes.entries()) {
        t.run((inner) => this.#runLane(index, lane, inner)).catch(() => undefined)
      }
      await this.#read(t.signal)
      await this.#claim(t.signal)
      // The end came within a large transaction.
      if (this.#open) await this.#lane(0).rollback()
      await this.#markNow(this.#lane(0), t.signal)
      this.#over = true
      this.#wake()
    })
  }

  async #read(signal: AbortSignal): Promise<void> {
    const { reader, ending } = this.#parts
    const reading = AbortSignal.any([signal, this.#stop.signal])
    try {
      for await (const item of reader.read({ signal: reading })) {
        if (item.kind === 'beat') await this.#beat(item, signal)
        else await this.#batch(item, signal)
        this.#wake()
        this.#judge(ending)
        if (this.#stop.signal.aborted) return
      }
    } catch (error) {
      signal.throwIfAborted()
      const stopped = isAbort(error) || isFault(error, 'interrupted', 'unreachable', 'timeout')
      if (!this.#stop.signal.aborted || !stopped) throw error
    }
  }

  /** The source's word how far it is: on an idle source the mark moves by it. */
  async #beat(beat: LogBeat, signal: AbortSignal): Promise<void> {
    if (this.#open) return
    const { history, at, timeUs } = beat
    await this.#enter(history, signal)
    if (at > this.#readAt) this.#pass({ history, at }, timeUs)
    const { time } = this.#work
    const { order } = this.#lanes
    if (this.#parts.ending.heard({ order, timeUs, nowMs: time.monotonicMs() })) this.#end()
  }

  async #batch(batch: Batch, signal: AbortSignal): Promise<void> {
    const { throttle } = this.#work
    await throttle?.pay(batch.rows, batch.sizeBytes, signal)
    for (const transaction of batch.transactions) {
      if (this.#stop.signal.aborted) return
      if (transaction.begins && transaction.ends) await this.#whole(transaction, signal)
      else await this.#piece(transaction, signal)
    }
  }

  async #whole(transaction: Transaction, signal: AbortSignal): Promise<void> {
    const { position, timeUs, aborted } = transaction
    assert(position !== undefined, 'a transaction that ends has a position')
    if (this.#parts.ending.isBehind(timeUs)) return this.#end()
    await this.#enter(position.history, signal)
    if (aborted || this.#lanes.isInherited(position)) return this.#pass(position, timeUs)
    if (transaction.changes.some(({ kind }) => kind === 'statement')) {
      return this.#define(transaction, position, signal)
    }
    const parts = this.#partsOf(transaction.changes, position)
    if (parts.length === 0) return this.#pass(position, timeUs)
    const tables = await this.#prepare(parts, signal)
    const barrier = this.#fresh || isBarrier(parts)
    if (barrier) await this.#drained(signal)
    while (this.#lanes.full) {
      this.#wakeLanes()
      await this.#room.heard(signal)
    }
    const keys = keysOf(parts, tables)
    this.#lanes.add({ position, timeUs, work: { parts }, keys, sizeBytes: sizeOf(parts) })
    this.#readAt = position.at
    if (barrier) await this.#drained(signal)
    this.#fresh = false
  }

  #partsOf(changes: readonly Change[], position: Position | undefined): Part[] {
    const { since, onHiddenCascade } = this.#work
    if (hidesCascade(changes, position, since)) onHiddenCascade()
    return partsOf(changes, position, since)
  }

  /** Pieces go into one open transaction of the target, while nothing else is under way. */
  async #piece(transaction: Transaction, signal: AbortSignal): Promise<void> {
    const { id, begins, ends, changes } = transaction
    if (begins) {
      await this.#claim(signal)
      if (this.#stop.signal.aborted) return
      this.#open = this.#begin(id)
    }
    const open = this.#open
    if (open?.id !== id) {
      throw new Fault('protocol', `read transaction ${id}: its begin is missing`)
    }
    if (!open.looking) {
      const parts = this.#partsOf(changes, open.position)
      await this.#prepare(parts, signal)
      open.bytes += sizeOf(parts)
      for (const part of parts) {
        const { converge } = part
        const written = await this.#lane(0).write(part.changes, { converge, alone: true, signal })
        open.rows += written.rows
        open.conflicts += written.conflicts
      }
    }
    if (ends) await this.#endPieces(transaction, open, signal)
  }

  #begin(id: string): Open {
    const { since } = this.#work
    const position = this.#parts.ends.get(id)
    const looking = position === undefined && since.isMixed(this.#lanes.low)
    return { id, position, looking, rows: 0, conflicts: 0, bytes: 0 }
  }

  async #endPieces({ position, ...rest }: Transaction, open: Open, signal: AbortSignal) {
    assert(position !== undefined, 'a transaction that ends has a position')
    this.#open = undefined
    if (open.looking) {
      this.#parts.ends.set(open.id, position)
      throw new ReadAgain()
    }
    const lane = this.#lane(0)
    const behind = this.#parts.ending.isBehind(rest.timeUs)
    const dropped = behind || rest.aborted === true || this.#lanes.isInherited(position)
    if (dropped) await lane.rollback()
    else await this.#commit(lane, this.#lanes.markAt(position), signal)
    this.#exclusive = false
    if (behind) return this.#end()
    this.#pass(position, rest.timeUs)
    if (!dropped) this.#count({ transactions: 1, ...open })
  }

  /** A statement is run while nothing else is under way; rows that it brings in its own transaction come behind it. */
  async #define(transaction: Transaction, position: Position, signal: AbortSignal): Promise<void> {
    const { changes, timeUs, id } = transaction
    const { since } = this.#work
    if (since.isCopied(position)) return this.#pass(position, timeUs)
    if (since.isMixed(position) || position.at === since.last.at) {
      throw new Fault(
        'source-changed',
        `apply transaction ${id}: a definition was changed while the copy was interrupted`,
        { hint: 'Begin anew: remove the state directory, and what was made on the target.' },
      )
    }
    await this.#claim(signal)
    const lastStatement = changes.findLastIndex(({ kind }) => kind === 'statement')
    const mark = this.#lanes.markAt(position)
    const before = this.#lanes.markAt(this.#lanes.low)
    for (const [index, change] of changes.entries()) {
      if (change.kind !== 'statement') {
        if (index > lastStatement) continue
        throw new Fault('unsupported', `apply transaction ${id}: rows before a definition in it`)
      }
      const marks = index === changes.length - 1 ? mark : before
      await this.#parts.applier.define(change, marks, { signal })
      this.#work.log.debug('ran a definition', { transaction: id })
    }
    this.#exclusive = false
    this.#tables = new Map()
    const rows = changes.slice(lastStatement + 1)
    if (rows.length === 0) {
      this.#marked(mark)
      this.#pass(position, timeUs)
      return this.#count({ transactions: 1, rows: 0, conflicts: 0, bytes: 0 })
    }
    await this.#whole({ ...transaction, changes: rows }, signal)
  }

  /** Finds the target's tables of relations that were not met yet. */
  async #prepare(
    parts: Work['parts'],
    signal: AbortSignal,
  ): Promise<ReadonlyMap<Relation, ApplyTable>> {
    for (const { changes } of parts) {
      for (const change of changes) {
        const relations = change.kind === 'truncate' ? change.relations : [change.relation]
        for (const relation of relations) {
          if (this.#tables.has(relation)) continue
          this.#tables.set(relation, await this.#parts.applier.prepare(relation, { signal }))
        }
      }
    }
    return this.#tables
  }

  /**
   * Behind a failover positions are of another history, and cannot be compared with those before: nothing of the old one is
   * under way then, and no mark lists transactions of two.
   */
  async #enter(history: string, signal: AbortSignal): Promise<void> {
    if (history === this.#history) return
    await this.#claim(signal)
    for (const lane of this.#parts.applier.lanes) {
      await this.#commit(lane, { low: this.#lanes.low, beyond: [] }, signal)
    }
    this.#lanes.changeHistory()
    this.#exclusive = false
    this.#history = history
    this.#fresh = true
    this.#readAt = ''
  }

  /** Nothing is to be written for it. */
  #pass(position: Position, timeUs: bigint): void {
    this.#lanes.add({ position, timeUs, work: undefined, keys: noKeys, sizeBytes: 0 })
    this.#readAt = position.at
    this.#tell()
  }

  async #runLane(index: number, lane: ApplyLane, signal: AbortSignal): Promise<void> {
    const bell = this.#bells[index]
    assert(bell !== undefined, 'each lane has a bell')
    while (!this.#over) {
      const group = this.#lanes.take(this.#bells.length - this.#busy)
      if (group) {
        this.#busy += 1
        await this.#carry(index, lane, group, signal)
        this.#busy -= 1
        this.#wake()
      } else if (index === 0 && this.#markIsDue()) {
        this.#busy += 1
        await this.#markNow(lane, signal)
        this.#busy -= 1
        this.#wake()
      } else await bell.heard(signal)
    }
  }

  async #carry(
    index: number,
    lane: ApplyLane,
    group: Group<Work>,
    signal: AbortSignal,
  ): Promise<void> {
    const { time, log } = this.#work
    const sizes = group.entries.map(({ sizeBytes }) => sizeBytes)
    for (let tries = 1; ; tries++) {
      let committing = false
      try {
        const written = await writeGroup(lane, group, signal)
        committing = true
        await this.#commit(lane, this.#lanes.mark(index, group), signal)
        this.#lanes.committed(index, group)
        const bytes = sizes.reduce((sum, size) => sum + size, 0)
        this.#count({ transactions: group.entries.length, ...written, bytes })
        return
      } catch (error) {
        if (signal.aborted || !isFault(error)) throw error
        const meets = error.code === 'conflict' && !group.sole
        const waits = !committing && mayPass(error) && tries < triesMax
        if (!meets && !waits) throw error
        await lane.rollback()
        log.debug(meets ? 'a change waits for those before it' : 'a lane tries again', {
          said: error.message,
        })
        // What it did not meet may be in a lane that has not committed yet.
        if (meets) return this.#lanes.again(group)
        const ceilingMs = Math.min(defaultRetry.delayMaxMs, defaultRetry.firstDelayMs * 2 ** tries)
        await time.sleep(ceilingMs * (0.5 + Math.random() / 2), signal)
      }
    }
  }

  #markIsDue(): boolean {
    if (!this.#lanes.idle || this.#exclusive || this.#lanes.low.at === this.#markedAt) return false
    return this.#work.time.monotonicMs() - this.#markedMs >= markEveryMs
  }

  /** Notes how far it is where no transaction did. */
  async #markNow(lane: ApplyLane, signal: AbortSignal): Promise<void> {
    if (this.#lanes.low.at === this.#markedAt) return this.#acknowledge(this.#lanes.low, true)
    const mark = this.#lanes.markAt(this.#lanes.low)
    await this.#commit(lane, mark, signal)
    await this.#acknowledge(mark.low, true)
  }

  async #commit(lane: ApplyLane, mark: Mark, signal: AbortSignal): Promise<void> {
    await lane.commit(mark, { signal })
    this.#marked(mark)
    await this.#acknowledge(mark.low, false)
  }

  #marked({ low }: Mark): void {
    this.#markedMs = this.#work.time.monotonicMs()
    this.#markedAt = low.at
  }

  /** The source may forget what stands in a mark. */
  async #acknowledge(low: Position, now: boolean): Promise<void> {
    const nowMs = this.#work.time.monotonicMs()
    if (!now && nowMs - this.#ackedMs < ackEveryMs) return
    this.#ackedMs = nowMs
    await this.#parts.reader.ack(low)
  }

  #count(written: {
    readonly transactions: number
    readonly rows: number
    readonly conflicts: number
    readonly bytes: number
  }): void {
    if (written.conflicts > 0) this.#work.onConflict()
    this.#work.meter.wrote(written)
    this.#tell()
    this.#judge(this.#parts.ending)
  }

  #tell(): void {
    const { low, timeUs, depth } = this.#lanes
    this.#work.meter.stands({ reached: low, timeUs, waiting: depth })
  }

  #judge(ending: Ending): void {
    if (ending.reached(this.#lanes.lowOrder, this.#work.time.monotonicMs())) this.#end()
  }

  #end(): void {
    this.#stop.abort(new Fault('interrupted', 'read changes: the end is reached'))
  }

  async #drained(signal: AbortSignal): Promise<void> {
    while (!this.#lanes.idle || this.#busy > 0) {
      this.#wakeLanes()
      await this.#room.heard(signal)
    }
  }

  /** The lanes are the reader's own from now on, until it gives them back. */
  async #claim(signal: AbortSignal): Promise<void> {
    while (!this.#lanes.idle || this.#busy > 0) {
      this.#wakeLanes()
      await this.#room.heard(signal)
    }
    this.#exclusive = true
  }

  #wake(): void {
    this.#wakeLanes()
    this.#room.ring()
  }

  #wakeLanes(): void {
    for (const bell of this.#bells) bell.ring()
  }

  #lane(index: number): ApplyLane {
    const lane = this.#parts.applier.lanes[index]
    assert(lane !== undefined, 'an applier has a lane')
    return lane
  }
}

const noKeys = new Uint32Array()

/** Another time it may go: a deadlock, a lock that was waited for too long. A lost connection never comes back. */
function mayPass(error: Fault): boolean {
  return error.recovery === 'retry' && !isFault(error, 'unreachable', 'timeout')
}

async function writeGroup(
  lane: ApplyLane,
  group: Group<Work>,
  signal: AbortSignal,
): Promise<{ readonly rows: number; readonly conflicts: number }> {
  let [rows, conflicts] = [0, 0]
  for (const { changes, converge } of joined(group)) {
    const written = await lane.write(changes, { converge, alone: group.sole, signal })
    rows += written.rows
    conflicts += written.conflicts
  }
  return { rows, conflicts }
}

/** The parts of all transactions, those of one kind that follow one another as one. */
function joined(group: Group<Work>): Work['parts'] {
  const all = group.entries.flatMap(({ work }) => work?.parts ?? [])
  const parts: { converge: boolean; changes: Work['parts'][number]['changes'][number][] }[] = []
  for (const { changes, converge } of all) {
    const last = parts.at(-1)
    if (last?.converge === converge) last.changes.push(...changes)
    else parts.push({ converge, changes: [...changes] })
  }
  return parts
}
