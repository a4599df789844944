import { Fault } from '#base/faults'
import type { LogBeat, LogBlock, Position } from '#change'
import type { Batch, ChangeReader, ChangeSource, OpenChanges } from '#change/batch'
import type { Source } from '../base.ts'
import { decodeXaPrepare, type Prepared } from './xa.ts'
import { eventType } from '../binlog/event.ts'
import type { Collation } from '../binlog/settings.ts'
import { BinlogSource } from '../log.ts'
import { comparePlaces, fileNumber, formatPlace, parsePlace, type Place } from '../position.ts'
import { readCollations } from '../replay-session.ts'
import { readLogFiles, readVariables } from '../server.ts'
import { CatalogLookup } from './catalog-table.ts'
import { ChangeDecoder } from './decoder.ts'
import { EventAssembler, type RawEvent, unpackEvents } from './events.ts'
import { Tables } from './tables.ts'

/** What comes within so long is taken together; more would be felt as delay. */
const gatherMs = 2

/** Reads the binary log of a live server as changes. */
export class MysqlChanges implements ChangeSource {
  readonly #source: Source

  constructor(source: Source) {
    this.#source = source
  }

  /** The server keeps its log by its own rules, and nothing for a reader. */
  async endChanges(): Promise<void> {}

  async openChanges(options: OpenChanges): Promise<ChangeReader> {
    const { endpoint, flavor } = this.#source
    const lookup = new CatalogLookup(endpoint, flavor)
    try {
      const { signal } = options
      const session = await lookup.session(signal)
      const collations = await readCollations(session, signal)
      const native = await readVariables(session, ['innodb_native_foreign_keys'], signal)
      const nativeForeignKeys = native.get('innodb_native_foreign_keys') === 'ON'
      return new MysqlChangeReader({
        source: this.#source,
        options,
        lookup,
        collations,
        nativeForeignKeys,
      })
    } catch (error) {
      lookup[Symbol.dispose]()
      throw error
    }
  }
}

type Parts = {
  readonly source: Source
  readonly options: OpenChanges
  readonly lookup: CatalogLookup
  readonly collations: ReadonlyMap<number, Collation>
  readonly nativeForeignKeys: boolean
}

class MysqlChangeReader implements ChangeReader {
  readonly #parts: Parts
  #rereads = 0

  constructor(parts: Parts) {
    this.#parts = parts
  }

  async *read(options: {
    readonly signal: AbortSignal
  }): AsyncGenerator<Batch | LogBeat, void, void> {
    const signal = AbortSignal.any([options.signal, this.#parts.options.signal])
    const { after, name } = this.#parts.options
    const from = parsePlace(after.at)
    const decoder = this.#decoder(signal)
    const assembler = new EventAssembler()
    await using log = this.#openLog(`changes ${name}`)
    // The file is read from its head: there it says how its events are written, and which file it is.
    const start = { history: after.history, at: formatPlace({ file: from.file, offset: 0 }) }
    let behind = from.offset > 0
    for await (const item of log.read(start, { signal })) {
      if (item.kind === 'beat') {
        checkBeat(item, after, behind)
        // Of a large transaction the log may hold a part: a link that noted that place could not go on there.
        if (decoder.idle) yield item
        continue
      }
      if (item.offset === 0) decoder.beginFile(item.history, startOf(item))
      for (const event of assembler.take(item)) {
        if (behind && isBefore(event, from, after)) {
          decoder.pass(event)
          if (comparePlaces(event.place, from) === 0) behind = !checkIdle(decoder, after)
          continue
        }
        behind = false
        const steps = decoder.take(event)
        if (steps) for await (const _ of steps) yield* decoder.takeReady()
        yield* decoder.takeReady()
      }
      decoder.endBlock(item.bytes.length)
      decoder.flush()
      yield* decoder.takeReady()
    }
  }

  #decoder(signal: AbortSignal): ChangeDecoder {
    const { source, options, lookup, collations, nativeForeignKeys } = this.#parts
    const charsets = new Map([...collations].map(([id, { charset }]) => [id, charset]))
    const tables = new Tables({
      selection: options.selection,
      charsets,
      readCatalog: (database, table) => lookup.read(database, table, signal),
    })
    return new ChangeDecoder({
      family: source.flavor.family,
      history: options.after.history,
      selection: options.selection,
      tables,
      collations,
      nativeForeignKeys,
      batchRowsMax: options.batchRowsMax,
      batchBytesMax: options.batchBytesMax,
      reread: (xid, prepared) => this.#reread(xid, prepared, signal),
    })
  }

  #openLog(name: string): BinlogSource {
    const { endpoint, flavor, history } = this.#parts.source
    const { log } = this.#parts.options
    const options = { log, name, durability: 'async', gatherMs } as const
    return new BinlogSource(endpoint, flavor, history, options)
  }

  /** The rows of a prepared transaction, from the log again. */
  async *#reread(
    xid: string,
    prepared: Prepared | undefined,
    signal: AbortSignal,
  ): AsyncGenerator<RawEvent, void, void> {
    const where = prepared ?? (await this.#find(xid, signal))
    for await (const event of this.#events(where.first.file, where.last, signal)) {
      if (comparePlaces(event.place, where.first) > 0) yield event
    }
  }

  /** Looks for a transaction that was prepared before the reading began: in the newest files first. */
  async #find(xid: string, signal: AbortSignal): Promise<{ first: Place; last: Place }> {
    const session = await this.#parts.lookup.session(signal)
    for (const file of (await readLogFiles(session, signal)).toReversed()) {
      const number = fileNumber(file.name)
      const end = { file: number, offset: file.sizeBytes }
      let found: { first: Place; last: Place } | undefined
      let first: Place = { file: number, offset: 0 }
      for await (const event of this.#events(number, end, signal)) {
        const { header, bytes, start, place } = event
        if (header.type === eventType.xaPrepare) {
          const body = bytes.subarray(start, event.end)
          if (decodeXaPrepare(body).xid === xid) found = { first, last: place }
        }
        if (isHead(header.type)) first = place
      }
      if (found) return found
    }
    throw new Fault('log-lost', `read XA transaction ${xid}: its first phase is in no log file`, {
      hint: 'It was prepared in a log that the server purged: copy the data anew.',
    })
  }

  /** The events of one file up to a place. */
  async *#events(
    file: number,
    last: Place,
    signal: AbortSignal,
  ): AsyncGenerator<RawEvent, void, void> {
    const { source, options } = this.#parts
    await using log = this.#openLog(`changes ${options.name} again ${this.#rereads++ % 8}`)
    const assembler = new EventAssembler()
    const start = { history: source.history, at: formatPlace({ file, offset: 0 }) }
    for await (const item of log.read(start, { signal })) {
      if (item.kind === 'beat') continue
      if (fileNumber(item.segment) !== file) return
      for (const event of assembler.take(item)) {
        if (comparePlaces(event.place, last) > 0) return
        if (event.header.type === eventType.transactionPayload) yield* unpackEvents(event)
        yield event
        if (comparePlaces(event.place, last) === 0) return
      }
    }
  }

  async ack(_upTo: Position): Promise<void> {
    // The server waits for nobody.
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#parts.lookup[Symbol.dispose]()
  }
}

function startOf(block: LogBlock): Place {
  return { file: fileNumber(block.segment), offset: 0 }
}

/** The heads of transactions: their rows come behind. */
function isHead(type: number): boolean {
  return (
    type === eventType.gtid ||
    type === eventType.anonymousGtid ||
    type === eventType.gtidTagged ||
    type === eventType.mariadbGtid
  )
}

const otherLogHint = 'The log is another one than before: copy the data anew.'

/** Whether an event was given out before; its end has to fit. */
function isBefore(event: RawEvent, from: Place, after: Position): boolean {
  const { place } = event
  const stamp = place.stamp
  const other = from.stamp !== undefined && from.file === place.file && from.stamp !== stamp
  const order = comparePlaces(place, from)
  const start = { ...place, offset: place.offset - event.header.sizeBytes }
  if (other || (order > 0 && comparePlaces(start, from) !== 0)) throw otherLog(after)
  return order <= 0
}

function otherLog(after: Position): Fault {
  return new Fault('source-changed', `read changes behind ${after.at}: the log has no such place`, {
    hint: otherLogHint,
  })
}

function checkIdle(decoder: ChangeDecoder, after: Position): true {
  if (decoder.idle) return true
  throw new Fault(
    'source-changed',
    `read changes behind ${after.at}: a transaction is open there`,
    {
      hint: otherLogHint,
    },
  )
}

/** A log that ends before the place that was reached lost what was given out. */
function checkBeat(beat: LogBeat, after: Position, behind: boolean): void {
  if (behind && beat.at.slice(0, 23) < after.at.slice(0, 23)) throw otherLog(after)
}
