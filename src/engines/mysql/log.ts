import { randomUUID } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { Fault, isFault } from '#base/faults'
import { retry } from '#base/retry'
import { systemTime } from '#base/time'
import type { LogBeat, LogBlock, LogSource, Position } from '#change'
import type { LogOptions } from '#engines'
import { Dump } from './dump.ts'
import { findFileOf } from './failover.ts'
import { type Cursor, FileReader } from './file-reader.ts'
import type { Flavor } from './flavor.ts'
import { createGtidSet, type GtidSet } from './gtid.ts'
import { chooseHistory, serverOf } from './history.ts'
import { fileNumber, formatPlace, parsePlace } from './position.ts'
import type { Endpoint } from './protocol/endpoint.ts'
import { Session } from './protocol/session.ts'
import { type LogFile, readAllGtids, readHistory, readLogFiles } from './server.ts'
import { LogWatch, Waiting } from './watch.ts'

/** Connections in a row that brought nothing. */
const failuresMax = 6
/**
 * Where commits need not wait for us, what comes within so long is taken together: each wake-up, and each sync of the
 * journal, costs more than the bytes of a commit.
 */
const gatherLongMs = 100
/** With more at once there is a backlog to catch up with. */
const gatherBytesMax = 128 * 1024
/**
 * While nothing comes the last acknowledgement is said again so often, as a replica of PostgreSQL does: a commit that waits
 * for one that did not arrive would wait for ever. The server passes over what it knows.
 */
const ackAgainMs = 2_000
const reconnect = { triesMax: 12, firstDelayMs: 50, delayMaxMs: 5_000 }

/** What is known of the server at one connection. */
type Link = {
  readonly control: Session
  readonly dump: Dump
  readonly files: readonly LogFile[]
}

type Item = LogBlock | LogBeat

/** Less where somebody waits to see what is committed. */
type Options = LogOptions & { readonly gatherMs?: number | undefined }

/** The binary log of one server, from a place on, as raw bytes of its files. One `read` at a time. */
export class BinlogSource implements LogSource, AsyncDisposable {
  readonly #endpoint: Endpoint
  readonly #flavor: Flavor
  readonly #options: Options
  readonly #serverId: number
  readonly #replicaUuid = randomUUID()
  #history: string
  #link: Link | undefined
  #names = new Map<number, string>()
  readonly #waiting: Waiting | undefined
  /** What was last said of the source's not waiting for us; null before the first word, which is told in any case. */
  #degraded: string | undefined | null = null
  /** Kept over reconnections: a commit may wait for an acknowledgement that was lost with the connection. */
  #acked: { readonly name: string; readonly offset: number } | undefined
  #ackedMs = 0
  /** All transactions up to the cursor: by them the log of another server is joined to this one's. */
  #gtids: GtidSet | undefined

  constructor(endpoint: Endpoint, flavor: Flavor, history: string, options: Options) {
    this.#endpoint = endpoint
    this.#flavor = flavor
    this.#history = history
    this.#options = options
    this.#waiting = options.durability === 'strict' ? new Waiting() : undefined
    // The upper half of the numbers: far from those that people give to servers.
    this.#serverId = (crc32(options.name) | 0x80000000) >>> 0
  }

  async *read(
    after: Position | undefined,
    options: { readonly signal: AbortSignal },
  ): AsyncGenerator<Item, void, void> {
    const { signal } = options
    let cursor: Cursor | undefined = after && {
      history: after.history,
      name: '',
      place: parsePlace(after.at),
    }
    for (let failures = 0; ; failures++) {
      const stream = this.#readOnce(cursor, signal)
      try {
        for await (const step of stream) {
          cursor = step.cursor
          failures = 0
          yield step.item
        }
      } catch (error) {
        if (!isFault(error, 'unreachable', 'timeout') || signal.aborted) throw error
        if (failures >= failuresMax) throw error
        this.#options.log.warn('the connection to the binary log was lost', { said: error.message })
        await systemTime.sleep(reconnect.firstDelayMs * 2 ** failures, signal)
      } finally {
        await this.#unlink()
      }
    }
  }

  async ack(upTo: Position): Promise<void> {
    if (this.#options.durability !== 'strict' || upTo.history !== this.#history) return
    const place = parsePlace(upTo.at)
    const name = this.#names.get(place.file)
    if (name === undefined || place.offset === 0) return
    this.#acked = { name, offset: place.offset }
    this.#ackedMs = systemTime.monotonicMs()
    this.#link?.dump.acknowledge(name, place.offset)
  }

  #ackAgain({ dump }: Link): void {
    const now = systemTime.monotonicMs()
    if (!this.#acked || now - this.#ackedMs < ackAgainMs) return
    this.#ackedMs = now
    dump.acknowledge(this.#acked.name, this.#acked.offset)
  }

  /** One connection's worth: ends by throwing, and behind a file that is torn. */
  async *#readOnce(
    from: Cursor | undefined,
    signal: AbortSignal,
  ): AsyncGenerator<{ cursor: Cursor; item: Item }, void, void> {
    const cursor = await retry(reconnect, signal, () => this.#connect(from, signal))
    const link = this.#link
    if (!link) throw new Fault('unreachable', 'read binary log: the connection is gone')
    await using watch = this.#watch(link, signal)
    const reader = new FileReader(cursor, this.#flavor.family)
    const { gatherMs = gatherLongMs } = this.#options
    let acked = this.#acked
    for await (const dumped of link.dump.read(signal)) {
      let block: LogBlock | undefined
      if (dumped.kind === 'file') {
        block = reader.begin(dumped.name)
        this.#names.set(fileNumber(dumped.name), dumped.name)
      } else if (dumped.kind === 'bytes') block = reader.take(dumped.bytes, dumped.ended)
      else if (dumped.kind === 'drained') block = reader.flush()
      else if (dumped.kind === 'torn') block = await this.#leave(reader, link, dumped.said, signal)
      this.#gtids = reader.gtids
      if (acked && reader.caughtUp) {
        link.dump.acknowledge(acked.name, acked.offset)
        acked = undefined
      }
      if (dumped.kind === 'heartbeat' && reader.caughtUp) this.#ackAgain(link)
      if (block) yield { cursor: reader.cursor, item: block }
      const beat = readBeat(reader, watch)
      if (beat) yield { cursor: reader.cursor, item: beat }
      const few = dumped.kind === 'drained' && block && block.bytes.length < gatherBytesMax
      if (few && !this.#waiting) await link.dump.rest(gatherMs, signal)
    }
  }

  /**
   * A killed MariaDB leaves the event that it was writing as it is, and writes a new file: the file is complete without it,
   * since a transaction whose end is not there was not committed. The server sends nothing behind it: the next connection does.
   */
  async #leave(
    reader: FileReader,
    link: Link,
    said: string,
    signal: AbortSignal,
  ): Promise<LogBlock | undefined> {
    const { file } = reader.cursor.place
    const files = await readLogFiles(link.control, signal)
    const next = files.find(({ name }) => fileNumber(name) > file)
    if (!next) throw new Fault('unreachable', `read binary log: ${said}`)
    this.#options.log.warn(`a binary log ends within an event: reading goes on in ${next.name}`, {
      said,
    })
    return reader.begin(next.name)
  }

  async #connect(from: Cursor | undefined, signal: AbortSignal): Promise<Cursor> {
    await this.#unlink()
    const control = await Session.open(this.#endpoint, { signal })
    try {
      await this.#checkVersion(control, signal)
      const server = await readHistory(control, this.#flavor, signal)
      const files = await readLogFiles(control, signal)
      const cursor = await this.#start(control, from, server, files, signal)
      const dump = await Dump.open(this.#endpoint, this.#flavor, cursor.name, {
        signal,
        serverId: this.#serverId,
        semiSync: this.#options.durability === 'strict',
        replicaUuid: this.#replicaUuid,
      })
      this.#link = { control, dump, files }
      // What another server was told says nothing to this one.
      if (cursor.history !== this.#history) this.#acked = undefined
      this.#history = cursor.history
      for (const file of files) this.#names.set(fileNumber(file.name), file.name)
      return cursor
    } catch (error) {
      control.destroy()
      throw error
    }
  }

  /** What is said to the server is in the words of its version: after an upgrade it must be opened anew. */
  async #checkVersion(control: Session, signal: AbortSignal): Promise<void> {
    const row = await control.one('SELECT @@global.version', { signal })
    const { version } = this.#flavor
    if (row?.[0] === version) return
    const said = `read binary log: the server was ${version} and is ${row?.[0]} now`
    throw new Fault('engine', said, { recovery: 'retry' })
  }

  /** The file to ask for, and the place in it from which on bytes are new. */
  async #start(
    control: Session,
    from: Cursor | undefined,
    server: string,
    files: readonly LogFile[],
    signal: AbortSignal,
  ): Promise<Cursor> {
    const newest = files.at(-1)
    if (!newest) throw new Fault('refused', 'read binary log: the server keeps none')
    if (!from) {
      const own = { endpoint: this.#endpoint, flavor: this.#flavor, history: server }
      const history = await chooseHistory(own, this.#options.known, signal)
      return { history, name: newest.name, place: { file: fileNumber(newest.name), offset: 0 } }
    }
    if (serverOf(from.history) !== server) {
      const known = this.#gtids
      if (!known || known.empty) throw changed(from.history, server)
      const theirs = createGtidSet(
        this.#flavor.family,
        await readAllGtids(control, this.#flavor, signal),
      )
      // What we have and it has not was lost in the failover: our log does not lead to its state.
      if (!theirs.covers(known)) throw changed(from.history, server)
      const name = await findFileOf(control, this.#flavor, files, known, signal)
      if (name === undefined) throw changed(from.history, server)
      return { history: server, name, place: { file: fileNumber(name), offset: 0 } }
    }
    return continueFrom(from, files)
  }

  #watch(link: Link, signal: AbortSignal): LogWatch {
    const { onDegraded } = this.#options
    const onVerdict = (said: string | undefined) => {
      if (said === this.#degraded) return
      this.#degraded = said
      onDegraded?.(said)
    }
    const onLost = (error: Fault) => link.dump.abandon(error)
    const { control: session } = link
    const waiting = this.#waiting
    return new LogWatch({ session, flavor: this.#flavor, waiting, onVerdict, onLost }, signal)
  }

  async #unlink(): Promise<void> {
    const link = this.#link
    this.#link = undefined
    if (!link) return
    await link.dump[Symbol.asyncDispose]()
    link.control.destroy()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#unlink()
  }
}

function readBeat(reader: FileReader, watch: LogWatch): LogBeat | undefined {
  // While bytes before the cursor are read again the log's end is not where we are.
  if (!reader.caughtUp) return undefined
  const { history, place } = reader.cursor
  const timeUs = watch.takeTimeUs(place)
  return timeUs === undefined
    ? undefined
    : { kind: 'beat', history, at: formatPlace(place), timeUs }
}

const resetHint = 'The binary logs were reset: a new base backup begins their next history.'

function changed(before: string, now: string): Fault {
  return new Fault('source-changed', `read binary log of ${before}: the server is ${now} now`, {
    hint: 'Take a new base backup of the server that answers at this address.',
  })
}

function continueFrom(from: Cursor, files: readonly LogFile[]): Cursor {
  const { place } = from
  const file = files.find((candidate) => fileNumber(candidate.name) === place.file)
  const [oldest, newest] = [files.at(0), files.at(-1)]
  if (!file) {
    if (newest && place.offset === 0 && place.file === fileNumber(newest.name) + 1) {
      throw new Fault('unreachable', `read binary log ${place.file}: the server has yet to make it`)
    }
    if (oldest && place.file < fileNumber(oldest.name)) {
      throw new Fault('log-lost', `read binary log ${place.file}: the oldest is ${oldest.name}`, {
        hint: 'The server purged it; a new base backup closes the gap. Keep binary logs for longer.',
      })
    }
    throw new Fault(
      'source-changed',
      `read binary log ${place.file}: the newest is ${newest?.name}`,
      {
        hint: resetHint,
      },
    )
  }
  if (file.sizeBytes < place.offset) {
    throw new Fault(
      'source-changed',
      `read binary log ${file.name} from ${place.offset}: it ends at ${file.sizeBytes}`,
      { hint: 'The server lost the end of its log or reset it; take a new base backup.' },
    )
  }
  return { ...from, name: file.name }
}
