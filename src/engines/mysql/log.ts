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

const statusPeriodMs = 1000
/** Connections in a row that brought nothing. */
const failuresMax = 6
const reconnect = { triesMax: 12, firstDelayMs: 50, delayMaxMs: 5_000 }

/** What is known of the server at one connection. */
type Link = {
  readonly control: Session
  readonly dump: Dump
  readonly files: readonly LogFile[]
  /** The server's clock minus ours. */
  readonly clockAheadUs: bigint
}

type Item = LogBlock | LogBeat

/** The binary log of one server, from a place on, as raw bytes of its files. One `read` at a time. */
export class BinlogSource implements LogSource, AsyncDisposable {
  readonly #endpoint: Endpoint
  readonly #flavor: Flavor
  readonly #options: LogOptions
  readonly #serverId: number
  readonly #replicaUuid = randomUUID()
  #history: string
  #link: Link | undefined
  #names = new Map<number, string>()
  /** What was last said of the source's not waiting for us. */
  #degraded: string | undefined
  /** All transactions up to the cursor: by them the log of another server is joined to this one's. */
  #gtids: GtidSet | undefined

  constructor(endpoint: Endpoint, flavor: Flavor, history: string, options: LogOptions) {
    this.#endpoint = endpoint
    this.#flavor = flavor
    this.#history = history
    this.#options = options
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
    this.#link?.dump.acknowledge(name, place.offset)
  }

  /** One connection's worth: ends only by throwing. */
  async *#readOnce(
    from: Cursor | undefined,
    signal: AbortSignal,
  ): AsyncGenerator<{ cursor: Cursor; item: Item }, void, void> {
    const cursor = await retry(reconnect, signal, () => this.#connect(from, signal))
    const link = this.#link
    if (!link) throw new Fault('unreachable', 'read binary log: the connection is gone')
    const watch = this.#watch(link, signal)
    try {
      const reader = new FileReader(cursor, this.#flavor.family)
      for await (const dumped of link.dump.read(signal)) {
        let item: Item | undefined
        if (dumped.kind === 'file') {
          item = reader.begin(dumped.name)
          this.#names.set(fileNumber(dumped.name), dumped.name)
        } else if (dumped.kind === 'bytes') item = reader.take(dumped.bytes, dumped.ended)
        else if (dumped.kind === 'drained') item = reader.flush()
        else item = this.#beat(reader, link)
        this.#gtids = reader.gtids
        if (item) yield { cursor: reader.cursor, item }
      }
    } finally {
      await watch.stop()
    }
  }

  #beat(reader: FileReader, link: Link): LogBeat | undefined {
    const { history, place } = reader.cursor
    // While bytes before the cursor are read again the log's end is not where we are.
    if (!reader.caughtUp) return undefined
    const timeUs = BigInt(systemTime.now()) * 1000n + link.clockAheadUs
    return { kind: 'beat', history, at: formatPlace(place), timeUs }
  }

  async #connect(from: Cursor | undefined, signal: AbortSignal): Promise<Cursor> {
    await this.#unlink()
    const control = await Session.open(this.#endpoint, { signal })
    try {
      const server = await readHistory(control, this.#flavor, signal)
      const files = await readLogFiles(control, signal)
      const cursor = await this.#start(control, from, server, files, signal)
      const dump = await Dump.open(this.#endpoint, this.#flavor, cursor.name, {
        signal,
        serverId: this.#serverId,
        semiSync: this.#options.durability === 'strict',
        replicaUuid: this.#replicaUuid,
      })
      const clockAheadUs = await readClockAhead(control, signal)
      this.#link = { control, dump, files, clockAheadUs }
      this.#history = cursor.history
      for (const file of files) this.#names.set(fileNumber(file.name), file.name)
      return cursor
    } catch (error) {
      control.destroy()
      throw error
    }
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

  /** Looks every second whether the source still waits for us. */
  #watch(link: Link, signal: AbortSignal): { stop(): Promise<void> } {
    const { onDegraded } = this.#options
    if (this.#options.durability !== 'strict' || !onDegraded) return { stop: async () => undefined }
    const done = new AbortController()
    const both = AbortSignal.any([signal, done.signal])
    const loop = async () => {
      for (;;) {
        await systemTime.sleep(statusPeriodMs, both)
        const now = await readDegraded(link.control, this.#flavor, both)
        if (now !== this.#degraded) onDegraded(now)
        this.#degraded = now
      }
    }
    const running = loop().catch((error: unknown) => {
      if (done.signal.aborted || signal.aborted) return
      this.#degraded = `the state of semi-synchronous replication cannot be read: ${String(error)}`
      onDegraded(this.#degraded)
    })
    return {
      stop: async () => {
        done.abort()
        await running
      },
    }
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

/** Undefined while the source waits for replicas as it should. */
async function readDegraded(
  control: Session,
  flavor: Flavor,
  signal: AbortSignal,
): Promise<string | undefined> {
  const rows = await control.texts(`SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_%_status'`, { signal })
  const names = flavor.sourceWords ? /source|master/i : /master/i
  const status = rows.find(([name]) => names.test(name ?? ''))?.[1]
  if (status === 'ON') return undefined
  return status === undefined
    ? 'the source has no semi-synchronous replication'
    : 'the source fell back to asynchronous replication: commits do not wait for the vault'
}

async function readClockAhead(control: Session, signal: AbortSignal): Promise<bigint> {
  const before = systemTime.now()
  const row = await control.one('SELECT UNIX_TIMESTAMP(NOW(6))', { signal })
  const after = systemTime.now()
  const [seconds = '0', fraction = ''] = (row?.[0] ?? '0').split('.')
  const theirs = BigInt(seconds) * 1_000_000n + BigInt(fraction.padEnd(6, '0').slice(0, 6))
  return theirs - BigInt(Math.round((before + after) / 2)) * 1000n
}
