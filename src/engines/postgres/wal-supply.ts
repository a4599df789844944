import { chown, mkdir, open, readdir, rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { Fault } from '#base/faults'
import { systemTime } from '#base/time'
import type { LogReader, Position, Target } from '#change'
import { historyFileName, parseHistory, parseSegmentName } from './lsn.ts'
import {
  CutFinder,
  checkReachable,
  type Cut,
  isOnPath,
  segmentPlace,
  type TimelinePath,
} from './wal-plan.ts'
import type { Served } from './wal-server.ts'

/** WAL files that lie ready ahead of the recovery. */
const readyFilesMax = 8
const pollMs = 10
/** Timelines are numbered without holes, save those that were never archived. */
const historyMissesMax = 4
const pieceBytes = 1 << 20

export type Owner = { readonly uid: number; readonly gid: number }

export type SupplyOptions = {
  readonly archive: LogReader
  readonly first: Position
  readonly consistent: Position
  readonly target: Target
  readonly path: TimelinePath
  readonly segmentBytes: number
  /** Where files are laid ready, taken away by the server's restore_command. */
  readonly folder: string
  readonly owner: Owner | undefined
  /** All of them are to lie there at the end, rather than a few ahead of a running recovery. */
  readonly all: boolean
  readonly signal: AbortSignal
}

/**
 * Lays the archived log ready for a recovery, file by file in order, cut off at the target, so that the server simply
 * replays all there is. The cut is exact for every kind of target, where the server's own recovery_target_time would
 * also stop at an abort, and would fail when no later commit exists.
 */
export class WalSupply {
  readonly #options: SupplyOptions
  readonly #finder: CutFinder
  /** How much of each file's content was laid ready. */
  readonly #laid = new Map<string, number>()
  #waiting = 0
  #frontier: { readonly timeline: number; readonly lsn: bigint } | undefined
  #done = false
  #left = false
  #failure: { readonly error: unknown } | undefined
  #listeners: (() => void)[] = []

  constructor(options: SupplyOptions) {
    this.#options = options
    this.#finder = new CutFinder(options.target, options.path, options.segmentBytes)
  }

  get finder(): CutFinder {
    return this.#finder
  }

  /** Where the replay of what was laid ready ends. */
  get end(): Cut | undefined {
    return this.#finder.cut ?? this.#finder.end
  }

  /** Whether the end of the log, or the target, was reached. */
  get done(): boolean {
    return this.#done
  }

  /** The server takes no more files: what is still to come is not waited for. */
  leave(): void {
    this.#left = true
  }

  /** Lays the files ready up to the target. A failure is also handed to whoever asks for a file. */
  async run(): Promise<void> {
    try {
      this.#done = await this.#run()
    } catch (error) {
      this.#failure = { error }
      throw error
    } finally {
      this.#tell()
    }
  }

  /** False when the server left before all was laid ready: how far it came is for the caller to judge. */
  async #run(): Promise<boolean> {
    const { archive, first, consistent, target, segmentBytes, signal, folder, owner } =
      this.#options
    await mkdir(folder, { recursive: true, mode: 0o700 })
    if (owner) await chown(folder, owner.uid, owner.gid)
    if (this.#options.all) await this.#layHistories()
    for await (const segment of archive.segments(first, { signal })) {
      const place = segmentPlace(segment, segmentBytes)
      if (!place || !isOnPath(this.#options.path, place.timeline)) continue
      if (!(await this.#room())) return false
      const content = await archive.read(segment.segment, { signal, history: segment.history })
      if (!content) throw new Fault('gap', `read the archived log: ${segment.segment} is missing`)
      if (await this.#lay(segment.segment, place, content)) break
      checkReachable(this.#finder.cut, consistent, target)
    }
    this.#finder.finish()
    checkReachable(this.#finder.cut, consistent, target)
    const end = this.end
    const wanted = parseHistory(consistent.history).timeline
    if (!end || (end.timeline === wanted && end.lsn < BigInt(`0x${consistent.at}`))) {
      throw new Fault(
        'gap',
        `read the archived log: it ends before the base is consistent, at ${consistent.at}`,
      )
    }
    return true
  }

  /** Writes one file; true when the target lies in it or before it. */
  async #lay(
    name: string,
    place: { readonly timeline: number; readonly first: bigint },
    content: AsyncIterable<Buffer>,
  ): Promise<boolean> {
    const { folder, owner, segmentBytes } = this.#options
    const part = path.join(folder, `.${name}.part`)
    this.#finder.begin(place.timeline, place.first)
    if (this.#cut()) return true
    await using file = await open(part, 'w', 0o600)
    let size = 0
    for await (const bytes of content) {
      size += bytes.length
      if (size > segmentBytes)
        throw new Fault('corrupt', `read ${name}: more than ${segmentBytes} bytes`)
      await file.writeFile(bytes)
      if (this.#finder.feed(bytes)) break
    }
    const cut = this.#cut()
    // A commit across the border of two files may be cut off at a start that lies in the file before: that one then
    // ends in half a record, which the server does not take, and this one is not needed.
    if (cut && cut.lsn <= place.first) {
      await rm(part)
      return true
    }
    if (cut) await file.truncate(Number(cut.lsn - place.first))
    await file.truncate(segmentBytes)
    if (owner) await file.chown(owner.uid, owner.gid)
    await rename(part, path.join(folder, name))
    this.#laid.set(name, cut ? Number(cut.lsn - place.first) : size)
    this.#frontier = { timeline: place.timeline, lsn: place.first + BigInt(segmentBytes) }
    this.#tell()
    return cut !== undefined
  }

  #cut(): Cut | undefined {
    return this.#finder.cut
  }

  // The server must know all timelines that there are, also those that branched off behind the target: it begins the
  // next one, and two of the same number could never be told apart again.
  async #layHistories(): Promise<void> {
    const { archive, folder, owner, signal, path: timelines } = this.#options
    let misses = 0
    for (let timeline = timelines.first; misses < historyMissesMax; timeline += 1) {
      const name = historyFileName(timeline)
      const content = await archive.read(name, { signal })
      if (!content) {
        misses += 1
        continue
      }
      misses = 0
      await using file = await open(path.join(folder, name), 'w', 0o600)
      for await (const bytes of content) await file.writeFile(bytes)
      if (owner) await file.chown(owner.uid, owner.gid)
    }
  }

  // Waits while enough lies ready, unless the server waits for a file that is still to come; false when it has left.
  async #room(): Promise<boolean> {
    const { all, folder, signal } = this.#options
    for (;;) {
      signal.throwIfAborted()
      if (all || this.#waiting > 0) return true
      const names = await readdir(folder)
      if (names.length < readyFilesMax) return true
      if (this.#left) return false
      await systemTime.sleep(pollMs, signal)
    }
  }

  /** Answers a question for a file that does not lie ready. */
  async find(name: string): Promise<Served | undefined> {
    const place = parseSegmentName(name, this.#options.segmentBytes)
    if (!place) return this.#findHistory(name)
    this.#waiting += 1
    try {
      for (;;) {
        if (this.#failure) throw this.#failure.error
        const laidBytes = this.#laid.get(name)
        if (laidBytes !== undefined) return await this.#again(name, laidBytes)
        if (this.#done || this.#passed(place)) return undefined
        await new Promise<void>((resolve) => this.#listeners.push(resolve))
      }
    } finally {
      this.#waiting -= 1
    }
  }

  #passed(place: { readonly timeline: number; readonly first: bigint }): boolean {
    const frontier = this.#frontier
    if (!frontier) return false
    if (place.timeline !== frontier.timeline) return place.timeline < frontier.timeline
    return place.first < frontier.lsn
  }

  async #findHistory(name: string): Promise<Served | undefined> {
    const { archive, signal } = this.#options
    if (!/^[0-9A-F]{8}\.history$/.test(name)) return undefined
    const content = await archive.read(name, { signal })
    if (!content) return undefined
    const bytes = Buffer.concat(await Array.fromAsync(content))
    return { sizeBytes: bytes.length, content: pieces([bytes]) }
  }

  // Asked for once more, after the server has taken the file that lay ready, or before it lay there: from the archive,
  // cut in the same place. The log may have grown meanwhile, and a server that has replayed what grew, then takes the
  // shorter file that lies ready still, does not find its last record again.
  async #again(name: string, size: number): Promise<Served | undefined> {
    const { archive, segmentBytes, signal } = this.#options
    const content = await archive.read(name, { signal })
    if (!content) throw new Fault('gap', `read the archived log: ${name} is missing`)
    return { sizeBytes: segmentBytes, content: padded(content, size, segmentBytes) }
  }

  #tell(): void {
    for (const listener of this.#listeners.splice(0)) listener()
  }
}

async function* pieces(list: readonly Buffer[]): AsyncGenerator<Buffer, void, void> {
  yield* list
}

/** The first `size` bytes, then zeroes up to `total`. */
async function* padded(
  content: AsyncIterable<Buffer>,
  size: number,
  total: number,
): AsyncGenerator<Buffer, void, void> {
  let sent = 0
  for await (const bytes of content) {
    const piece = bytes.subarray(0, size - sent)
    sent += piece.length
    if (piece.length > 0) yield piece
    if (sent === size) break
  }
  for (; sent < total; sent += Math.min(pieceBytes, total - sent)) {
    yield Buffer.alloc(Math.min(pieceBytes, total - sent))
  }
}
