import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Fault } from '#base/faults'
import type { Log } from '#base/log'
import { systemTime, type Time } from '#base/time'
import type { Position } from '#change'
import type { Storage } from '#storage'
import type { ArchiveWriter, LogFinding, LogSpan } from './archive.ts'
import { checkLog } from './check.ts'
import { copyLog } from './copy.ts'
import type { Holder } from './holder.ts'
import { type Degraded, newestLease } from './lease.ts'
import { decodeText, encodeText } from './names.ts'
import type { Reading, Sealing, Trust } from './object.ts'
import { type ArchiveReader, openReader } from './reader.ts'
import { readIndex } from './log-index.ts'
import { readSpans } from './spans.ts'
import { type Removed, removeSigned } from './strike.ts'
import { trimLog } from './trim.ts'
import { openWriter } from './writer.ts'

type Options = { readonly signal: AbortSignal }

export type WriterChoices = Options & {
  /** Where packed parts wait for their fold, over restarts too; else a folder for the life of this writer. */
  readonly stateDirectory?: string | undefined
  /** Object lock of folded objects; a store without it is refused. */
  readonly retainMs?: number | undefined
  /** How long a commit may wait for company on its way to the store; 400 ms unless told. */
  readonly cutAfterMs?: number | undefined
}

/** The log archive of all sources. */
export interface Archive {
  /** Becomes the one archiver of the source; `locked` while another one lives. */
  openWriter(source: string, options: WriterChoices): Promise<ArchiveWriter>
  openReader(source: string, options: Options): Promise<ArchiveReader>
  /** Names of the sources that have any log here. */
  sources(options: Options): Promise<string[]>
  /** What keeps the source's commits from being as durable as was asked for, by the word of its archiver, heard of at `heardMs`. */
  degraded(
    source: string,
    options: Options,
  ): Promise<(Degraded & { readonly heardMs: number }) | undefined>
  /** What is there without a hole, in log order: one span means no gap. */
  spans(source: string, options: Options): Promise<LogSpan[]>
  /** All findings: records, signatures, the chain, and with `readData` every byte. */
  check(source: string, options: Options & { readonly readData: boolean }): Promise<LogFinding[]>
  /** Brings another archive up to what this one holds of a source's log. */
  copyTo(to: Archive, source: string, options: Options): Promise<void>
  /** Removes whole segments that end at or before a position: nothing that a base still needs. Returns how many objects went. */
  trim(source: string, before: Position, options: Options): Promise<number>
  /** Removes what a key signed of a source's log: it was struck off. A dry run counts, and removes nothing. */
  removeSigned(
    source: string,
    keyId: string,
    options: Options & { readonly dryRun?: boolean | undefined },
  ): Promise<Removed>
}

export type ArchiveOptions = {
  readonly storage: Storage
  readonly sealing: Sealing
  readonly trust: Trust
  /** Undefined on a host that only archives. */
  readonly reading: Reading | undefined
  readonly holder: Holder
  /** Reads the enrolled keys again: an archiver may have been enrolled, or struck off, since the vault was opened. */
  readonly refreshKeys: (signal: AbortSignal) => Promise<void>
  /** What was let go on purpose. */
  readonly trims: TrimRecords
  readonly log: Log
  readonly time?: Time | undefined
}

/** The catalog's records of trims: kept before log is removed, asked for by a check. */
export interface TrimRecords {
  addTrim(
    record: { readonly source: string; readonly before: Position; readonly sequence: number },
    options: Options,
  ): Promise<void>
  trims(source: string, options: Options): Promise<readonly { readonly sequence: number }[]>
}

export class LogArchive implements Archive {
  readonly #options: ArchiveOptions

  constructor(options: ArchiveOptions) {
    this.#options = options
  }

  async openWriter(source: string, choices: WriterChoices): Promise<ArchiveWriter> {
    const { signal, stateDirectory, retainMs, cutAfterMs } = choices
    this.#checkLock(source, retainMs)
    await this.#options.refreshKeys(signal)
    const own = stateDirectory === undefined
    const folder = own
      ? await mkdtemp(path.join(tmpdir(), 'redoubt-spool-'))
      : path.join(stateDirectory, 'spool', this.#options.sealing.vault, encodeText(source))
    try {
      const { time, ...rest } = this.#options
      const writer = await openWriter(
        { ...rest, time: time ?? systemTime, source, spoolFolder: folder, retainMs, cutAfterMs },
        signal,
      )
      if (own) writer.onClosed(() => rm(folder, { recursive: true, force: true }))
      return writer
    } catch (error) {
      if (own) await rm(folder, { recursive: true, force: true })
      throw error
    }
  }

  /** A lock that is asked for and not had would be missed when it is too late. */
  #checkLock(source: string, retainMs: number | undefined): void {
    const { storage } = this.#options
    if (retainMs === undefined || storage.can.retention) return
    throw new Fault(
      'unsupported',
      `archive the log of ${source} under object lock: ${storage.url} has none`,
      { hint: 'Use a bucket that was made with object lock, or leave --lock out.' },
    )
  }

  async openReader(source: string, { signal }: Options): Promise<ArchiveReader> {
    const { storage, refreshKeys } = this.#options
    await refreshKeys(signal)
    return openReader({ storage, source, reading: this.#reading(), signal })
  }

  async sources(options: Options): Promise<string[]> {
    const { storage } = this.#options
    const names: string[] = []
    // One listing a source: behind the newest name found, the next one begins.
    for (let after = 'log/'; ; ) {
      const listing = storage.list('log/', { ...options, after })[Symbol.asyncIterator]()
      const { value, done } = await listing.next()
      await listing.return?.()
      if (done) return names
      const [, folder = ''] = value.key.split('/')
      const name = decodeText(folder)
      if (name !== undefined) names.push(name)
      // `0` is the character behind the slash.
      after = `log/${folder}0`
    }
  }

  async degraded(source: string, { signal }: Options) {
    const { storage, trust, refreshKeys } = this.#options
    await refreshKeys(signal)
    const lease = await newestLease({ storage, source, keyring: trust.keyring }, signal)
    return lease?.degraded && { ...lease.degraded, heardMs: lease.seenMs }
  }

  async spans(source: string, { signal }: Options): Promise<LogSpan[]> {
    const { storage, trust, refreshKeys } = this.#options
    await refreshKeys(signal)
    // Before the listing: what it tells of must then be listed.
    const lease = await newestLease({ storage, source, keyring: trust.keyring }, signal)
    const index = await readIndex(storage, source, trust, signal)
    return readSpans({ storage, source, trust, lease }, index, signal)
  }

  async check(
    source: string,
    options: Options & { readonly readData: boolean },
  ): Promise<LogFinding[]> {
    const { storage, refreshKeys, reading, trims } = this.#options
    await refreshKeys(options.signal)
    // A host that only archives cannot read the catalog.
    const trimmed = reading && (await trims.trims(source, options))
    const trimmedTo = trimmed && Math.max(0, ...trimmed.map(({ sequence }) => sequence))
    return checkLog({ storage, source, reading: this.#reading(), trimmedTo, ...options })
  }

  async copyTo(to: Archive, source: string, options: Options): Promise<void> {
    await using writer = await to.openWriter(source, options)
    await copyLog(await this.openReader(source, options), writer, options)
  }

  trim(source: string, before: Position, { signal }: Options): Promise<number> {
    const { storage, trust, trims } = this.#options
    const record = (sequence: number, inner: AbortSignal) =>
      trims.addTrim({ source, before, sequence }, { signal: inner })
    return trimLog({ storage, source, trust, record, signal }, before)
  }

  removeSigned(
    source: string,
    keyId: string,
    { signal, dryRun = false }: Options & { readonly dryRun?: boolean | undefined },
  ): Promise<Removed> {
    return removeSigned({ storage: this.#options.storage, source, dryRun, signal }, keyId)
  }

  #reading(): Reading {
    const { reading, trust } = this.#options
    return reading ?? { ...trust, identities: [] }
  }
}
