import { open, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { assert, Fault, fromSystem } from '#base/faults'
import { makeFolders } from '#base/folders'
import type { LogBlock, LogSink, Position } from '#change'
import { lockDirectory } from './lock.ts'
import { SpoolFile } from './spool-file.ts'

/**
 * The durable local spool of one source's log, in its native bytes: what was appended is synced, what is read was
 * checked, the whole stays below a limit. One process writes; any number of readers follow. Invariants: SPEC.md.
 */
export interface Journal extends LogSink, AsyncDisposable {
  /** Takes a block and syncs it; waits while the journal is at its limit. `gap` when it does not continue the last one. */
  append(block: LogBlock, options: { readonly signal: AbortSignal }): Promise<void>
  /** The end of what is synced. */
  durable(): Position | undefined
  /** The beginning of what is still held. */
  first(): Position | undefined
  /**
   * Blocks behind `after` (a position where a block ended), or all that is held, then whatever comes, for ever.
   * `log-lost` when the journal no longer holds what follows `after`.
   */
  read(
    after: Position | undefined,
    options: { readonly signal: AbortSignal },
  ): AsyncGenerator<LogBlock, void, void>
  /**
   * Where a moment falls in what is held: the last commit before the first one that is stamped later, which is where a
   * restore to that moment ends. Undefined when the first commit held is later, or none is held. Reads at most a mark's width of records.
   */
  positionAt(
    timeUs: bigint,
    options: { readonly signal: AbortSignal },
  ): Promise<Position | undefined>
  /** Lets go of what ends at or before the position; whole files at a time. */
  trim(upTo: Position): Promise<void>
  /** Forgets everything: the log starts anew elsewhere. Readers end with `log-lost`. */
  reset(options: { readonly signal: AbortSignal }): Promise<void>
  readonly sizeBytes: number
}

export type JournalOptions = {
  readonly limitBytes: number
  readonly signal: AbortSignal
}

const fileBytesMax = 64 * 2 ** 20
const filePattern = /^(\d{12})\.journal$/

/** Opens the journal in a directory (made if absent), cutting off what a crash left unfinished at its end. */
export async function openJournal(directory: string, options: JournalOptions): Promise<Journal> {
  await makeFolders(directory, 0o700).catch((error: unknown) => {
    throw fromSystem(error, `make the state directory ${directory}`)
  })
  await using stack = new AsyncDisposableStack()
  stack.use(await lockDirectory(directory))
  const numbers = (await readdir(directory))
    .flatMap((name) => filePattern.exec(name)?.[1] ?? [])
    .map(Number)
    .toSorted((a, b) => a - b)
  const files: SpoolFile[] = []
  for (const number of numbers) {
    options.signal.throwIfAborted()
    const file = await SpoolFile.open(pathOf(directory, number), number)
    stack.defer(() => file.close())
    await file.recover(number === numbers.at(-1))
    files.push(file)
  }
  const lock = stack.move()
  return new DirectoryJournal({ directory, files, lock, limitBytes: options.limitBytes })
}

class DirectoryJournal implements Journal {
  readonly #directory: string
  readonly #limitBytes: number
  readonly #fileBytesMax: number
  readonly #held: AsyncDisposableStack
  #files: SpoolFile[]
  #nextNumber: number
  #generation = 0
  #closed = false
  #appending = false
  #changed = Promise.withResolvers<void>()

  constructor(state: {
    readonly directory: string
    readonly files: SpoolFile[]
    readonly lock: AsyncDisposableStack
    readonly limitBytes: number
  }) {
    this.#directory = state.directory
    this.#limitBytes = state.limitBytes
    this.#fileBytesMax = Math.min(fileBytesMax, Math.max(1, Math.floor(state.limitBytes / 4)))
    this.#held = state.lock
    this.#files = state.files
    this.#nextNumber = (state.files.at(-1)?.number ?? 0) + 1
  }

  get sizeBytes(): number {
    return this.#files.reduce((sum, file) => sum + file.sizeBytes, 0)
  }

  durable(): Position | undefined {
    const last = this.#last()
    return last && { history: last.history, at: last.next }
  }

  first(): Position | undefined {
    const first = this.#files.find((file) => file.first)?.first
    return first && { history: first.history, at: first.first }
  }

  async append(block: LogBlock, options: { readonly signal: AbortSignal }): Promise<void> {
    assert(!this.#appending, 'one caller at a time appends to a journal')
    this.#appending = true
    try {
      this.#checkContinues(block)
      const sizeBytes = block.bytes.length
      while (this.sizeBytes > 0 && this.sizeBytes + sizeBytes > this.#limitBytes) {
        await this.#wait(this.#changed.promise, options.signal)
      }
      const file = await this.#fileFor(sizeBytes)
      await file.append(block)
      this.#notify()
    } finally {
      this.#appending = false
    }
  }

  async *read(
    after: Position | undefined,
    options: { readonly signal: AbortSignal },
  ): AsyncGenerator<LogBlock, void, void> {
    const generation = this.#generation
    let at = after ? this.#place(after) : this.#start()
    for (;;) {
      // Asked for before the look, so that what is appended in between is not missed.
      const changed = this.#changed.promise
      const file = this.#files.find((one) => one.number >= at.number)
      const offset = file?.number === at.number ? at.offset : 0
      const found = await file?.read(offset).catch((error: unknown) => {
        throw generation === this.#generation ? error : lost(this.#directory, after)
      })
      if (generation !== this.#generation) throw lost(this.#directory, after)
      if (file && found) {
        at = { number: file.number, offset: found.end }
        if (!after || liesBehind(found.block, after)) yield found.block
      } else if (file && file !== this.#files.at(-1)) {
        at = { number: file.number + 1, offset: 0 }
      } else {
        await this.#wait(changed, options.signal)
      }
    }
  }

  async positionAt(
    timeUs: bigint,
    options: { readonly signal: AbortSignal },
  ): Promise<Position | undefined> {
    const generation = this.#generation
    let last: Position | undefined
    // Those that are there now: what is trimmed meanwhile is passed over by whoever asks again.
    for (const file of this.#files.slice()) {
      options.signal.throwIfAborted()
      const found = await file.commitAt(timeUs).catch((error: unknown) => {
        throw this.#files.includes(file) && generation === this.#generation
          ? error
          : lost(this.#directory, last)
      })
      if (found !== undefined) return found === 'none' ? last : found
      last = file.commits?.last ?? last
    }
    return last
  }

  async trim(upTo: Position): Promise<void> {
    for (const file of this.#files.slice(0, -1)) {
      const { last } = file
      const passed = last && last.history === upTo.history && last.next <= upTo.at
      const older = last && last.history !== upTo.history && this.#comesBefore(file, upTo)
      if (!passed && !older) break
      await this.#remove(file)
    }
    this.#notify()
  }

  async reset(options: { readonly signal: AbortSignal }): Promise<void> {
    options.signal.throwIfAborted()
    this.#generation += 1
    for (const file of this.#files.slice()) await this.#remove(file)
    this.#notify()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    this.#notify()
    await this.#held.disposeAsync()
  }

  #last(): LogBlock | undefined {
    return this.#files.findLast((file) => file.last)?.last
  }

  #checkContinues(block: LogBlock): void {
    const last = this.#last()
    if (!last || last.history !== block.history || last.next === block.first) return
    throw new Fault(
      'gap',
      `append to the journal: block starts at ${block.first}, but the journal ends at ${last.next}`,
    )
  }

  /** The file to append to: a new one when the last is full. */
  async #fileFor(sizeBytes: number): Promise<SpoolFile> {
    const last = this.#files.at(-1)
    if (last && (last.sizeBytes === 0 || last.sizeBytes + sizeBytes <= this.#fileBytesMax)) {
      return last
    }
    const number = this.#nextNumber++
    const file = await SpoolFile.open(pathOf(this.#directory, number), number)
    this.#held.defer(() => file.close())
    await syncDirectory(this.#directory)
    last?.forget()
    this.#files.push(file)
    return file
  }

  /** Where to start reading for what follows a position that a block ended at. */
  #place(after: Position): { number: number; offset: number } {
    const first = this.first()
    const known = this.#files.some(
      (file) => file.first?.history === after.history || file.last?.history === after.history,
    )
    if (first && (!known || (first.history === after.history && after.at < first.at))) {
      throw lost(this.#directory, after)
    }
    const file = this.#files.findLast(
      (one) => one.first?.history === after.history && one.first.first <= after.at,
    )
    if (!file) return this.#start()
    return { number: file.number, offset: file.offsetFor(after.history, after.at) }
  }

  #start(): { number: number; offset: number } {
    return { number: this.#files[0]?.number ?? 0, offset: 0 }
  }

  #comesBefore(file: SpoolFile, upTo: Position): boolean {
    const later = this.#files.slice(this.#files.indexOf(file) + 1)
    return later.some((one) => one.first?.history === upTo.history)
  }

  async #remove(file: SpoolFile): Promise<void> {
    this.#files = this.#files.filter((one) => one !== file)
    await file.close()
    await rm(file.path, { force: true })
  }

  #notify(): void {
    this.#changed.resolve()
    this.#changed = Promise.withResolvers<void>()
  }

  /** Waits until something was appended, trimmed or closed. */
  async #wait(changed: Promise<void>, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.#closed) throw new Fault('interrupted', `read journal ${this.#directory}: closed`)
    const aborted = Promise.withResolvers<never>()
    const abort = () => aborted.reject(signal.reason)
    signal.addEventListener('abort', abort, { once: true })
    try {
      await Promise.race([changed, aborted.promise])
    } finally {
      signal.removeEventListener('abort', abort)
    }
  }
}

/**
 * Whether a reader that has everything up to `after` still lacks the block. A block without width (a timeline's history
 * file begins and ends at one position) at that very point may be one it has: whoever takes it takes it twice without harm.
 */
function liesBehind(block: LogBlock, after: Position): boolean {
  if (block.history !== after.history || block.next > after.at) return true
  return block.first === block.next && block.first === after.at
}

function lost(directory: string, after: Position | undefined): Fault {
  return new Fault(
    'log-lost',
    `read journal ${directory}: it no longer holds what follows ${after?.at}`,
  )
}

function pathOf(directory: string, number: number): string {
  return join(directory, `${String(number).padStart(12, '0')}.journal`)
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
