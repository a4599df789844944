import { isFault } from '#base/faults'
import type { Log } from '#base/log'
import { eachLimit } from '#base/tasks'
import { fold, type FoldOptions } from './fold.ts'
import type { ListFrom, StoredObject } from './inventory.ts'
import type { Lease } from './lease.ts'
import { type Linked, listFrom, type Tail } from './tail.ts'

export type FoldQueueOptions = Omit<FoldOptions, 'retainUntilMs' | 'epoch'> & {
  readonly lease: Lease
  readonly source: string
  readonly log: Log
  readonly retainMs?: number | undefined
  readonly graceMs: number
  readonly onFailure: (error: unknown) => void
}

/** Ended segments that may wait for their fold before appending waits too. */
const waitingMax = 8
/** A slow segment's parts are joined into a run when there are so many, so that their number stays small. */
const runPartsMax = 256
const runBytesMax = 16 * 1024 * 1024
/** Deletions at once, and in one sweep. */
const deletionsAtOnce = 4
const deletionsMax = 2000

type Swept = { readonly object: StoredObject; readonly sinceMs: number }

/**
 * Folds ended segments, one after the other, behind the back of the writer, and deletes parts when their grace period
 * has passed by the store's own clock.
 */
export class FoldQueue {
  readonly #options: FoldQueueOptions
  /** The open segment's objects, in order. Each segment has a list of its own, which its jobs share. */
  #group: Linked[] = []
  readonly #deletable: Swept[] = []
  #full: StoredObject | undefined
  #from: ListFrom | undefined
  #runFrom = 0
  #waiting = 0
  #last: Promise<void> = Promise.resolve()
  #room = Promise.withResolvers<void>()

  constructor(options: FoldQueueOptions) {
    this.#options = options
  }

  /** From where on the store need be listed to find all that this archiver knows to be open. */
  get from(): ListFrom | undefined {
    return this.#from
  }

  /** Takes over what an earlier archiver left: segments to be folded, parts to be deleted. */
  adopt(tail: Tail): void {
    this.#full = tail.full
    this.#from = tail.from
    for (const group of tail.unfolded) for (const part of group) this.take(part)
    const left = tail.covered
    if (left.length > 0) this.#enqueue(async () => this.#outlived(left, await this.#now()))
  }

  /** The next object of the chain, durable now. */
  take(part: Linked): void {
    const before = this.#group.at(-1)?.record
    const { record } = part
    const starts =
      before && (before.segment !== record.segment || before.history !== record.history)
    if (starts || (before && record.hole)) this.#endSegment()
    this.#group.push(part)
    if (record.closes) this.#endSegment()
    else this.#joinRun()
  }

  /** Waits while too many segments wait. */
  async room(signal: AbortSignal): Promise<void> {
    while (this.#waiting >= waitingMax) {
      signal.throwIfAborted()
      await this.#room.promise
    }
  }

  async idle(): Promise<void> {
    await this.#last
  }

  /** Deletes parts whose grace period is over. */
  async sweep(): Promise<void> {
    const [oldest] = this.#deletable
    if (!oldest) return
    const { storage, signal, graceMs } = this.#options
    const nowMs = await this.#now()
    const due = this.#deletable.filter(({ sinceMs }) => nowMs - sinceMs >= graceMs)
    const batch = due.slice(0, deletionsMax)
    await eachLimit(batch, deletionsAtOnce, signal, ({ object }, inner) =>
      storage.delete(object.key, { signal: inner }),
    )
    const gone = new Set(batch)
    const left = this.#deletable.filter((one) => !gone.has(one))
    this.#deletable.splice(0, this.#deletable.length, ...left)
    this.#moveFrom(this.#full)
  }

  #endSegment(): void {
    const parts = this.#group
    this.#group = []
    this.#runFrom = 0
    this.#enqueue(async () => {
      const retainUntilMs = await this.#retainUntil()
      const done = await fold(parts, 'full', {
        ...this.#options,
        epoch: this.#options.lease.epoch,
        retainUntilMs,
      })
      const [first] = parts
      if (!done || !first) {
        this.#options.log.warn('a segment stays in parts: its bytes are not at hand to be folded', {
          segment: first?.record.segment,
          parts: parts.length,
        })
        return
      }
      this.#outlived(
        parts.map(({ kept }) => kept),
        done.folded.kept.modifiedMs,
      )
      this.#moveFrom(done.folded.kept)
      await this.#options.spool.drop(first.record.history, first.record.segment)
    })
  }

  /** Joins the parts behind the last run, when they are many and small. */
  #joinRun(): void {
    const group = this.#group
    const parts = group.slice(this.#runFrom)
    const bytes = parts.reduce((sum, { record }) => sum + record.sizeBytes, 0)
    const many = parts.length >= runPartsMax
    if (many || bytes > runBytesMax) this.#runFrom = group.length
    if (!many || bytes > runBytesMax) return
    this.#enqueue(async () => {
      const done = await fold(parts, 'run', {
        ...this.#options,
        epoch: this.#options.lease.epoch,
        retainUntilMs: undefined,
      })
      if (!done) return
      const { folded, plain } = done
      if (plain) await this.#options.spool.add({ ...folded.record, link: folded.link }, plain)
      this.#outlived(
        parts.map(({ kept }) => kept),
        folded.kept.modifiedMs,
      )
      const at = group.findIndex(({ key }) => key === parts[0]?.key)
      group.splice(at, parts.length, folded)
      if (this.#group === group) this.#runFrom -= parts.length - 1
    })
  }

  #enqueue(work: () => Promise<void>): void {
    this.#waiting += 1
    this.#last = this.#last
      .then(async () => {
        this.#options.signal.throwIfAborted()
        await work()
      })
      .catch((error: unknown) => {
        // A full disk or bucket: the segment stays in parts, and the next archiver folds it.
        if (isFault(error, 'full')) this.#options.log.warn(`could not fold: ${error.message}`)
        else this.#options.onFailure(error)
      })
      .finally(() => {
        this.#waiting -= 1
        this.#room.resolve()
        this.#room = Promise.withResolvers<void>()
      })
  }

  #outlived(objects: readonly StoredObject[], sinceMs: number): void {
    for (const object of objects) this.#deletable.push({ object, sinceMs })
  }

  #moveFrom(full: StoredObject | undefined): void {
    if (!full) return
    const before = [...(this.#from?.past ?? []), this.#from, this.#full]
    const deletable = this.#deletable.map(({ object }) => object)
    this.#from = listFrom(
      full,
      deletable,
      before.filter((mark) => mark !== undefined),
    )
    this.#full = full
  }

  #now(): Promise<number> {
    return this.#options.lease.storeMs(this.#options.signal)
  }

  async #retainUntil(): Promise<number | undefined> {
    const { retainMs, storage } = this.#options
    if (retainMs === undefined || !storage.can.retention) return undefined
    return (await this.#now()) + retainMs
  }
}
