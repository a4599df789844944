import type { BlockWriter } from '#base/blocks'
import { Fault, isFault } from '#base/faults'
import type { BaseFacts, BaseOptions, BaseSink } from '#engines'
import { clockUs, isSoundNow, readSettings, readSuperuser } from './base-facts.ts'
import { compareTaken, wholeManifest } from './base-manifest.ts'
import {
  ArchiveReader,
  attributes,
  collect,
  fileEntry,
  manifestEntry,
  once,
  OpenFile,
  readHead,
  type Taken,
} from './base-stream.ts'
import { type Address, openBulkSender, openSession, type Session } from './connection.ts'
import type { ServerFacts } from './facts.ts'
import { type Extent, toExtents, wholePath, wholeSizeBytes } from './incremental.ts'
import { positionOf } from './lsn.ts'
import { formatManifest, parseManifest } from './manifest.ts'
import { inspectPages, joinSaid } from './page-inspector.ts'
import { Crc32c } from './page-sums.ts'
import { type DamagedPage, damagedMax, firstBlockOf, isSound } from './pages.ts'
import {
  type BackupEvent,
  readBackup,
  type Tablespace,
  uploadManifest,
} from './protocol/base-backup.ts'
import type { Wire } from './protocol/wire.ts'
import type { TarEntry } from './tar.ts'

/** Files that are rewritten at a time. The others are bounded by the sink's blocks. */
const openFilesMax = 16
/** A manifest is held in memory: some 150 bytes for each file of the cluster. */
const manifestBytesMax = 1 << 30

export const manifestName = 'backup_manifest'

/** Takes a physical base backup over the replication protocol: a whole one, or, from 17 on, the changes since the parent. */
export async function takePhysicalBase(
  address: Address,
  facts: ServerFacts,
  sink: BaseSink,
  options: BaseOptions,
): Promise<BaseFacts> {
  const { signal, log } = options
  if (options.parent && (await canBuildOn(address, facts, options.parent.facts, options))) {
    try {
      return await new BaseTaker(address, facts, sink, options, true).run()
    } catch (error) {
      // Refused before anything was sent: summaries that are gone or do not reach back, a manifest it does not know.
      if (!(error instanceof IncrementalRefused)) throw error
      signal.throwIfAborted()
      log.info('takes a whole base: the server refused an incremental one', {
        cause: error.fault.message,
      })
    }
  }
  return new BaseTaker(address, facts, sink, options, false).run()
}

class IncrementalRefused extends Error {
  readonly fault: Fault
  constructor(fault: Fault) {
    super(fault.message, { cause: fault })
    this.fault = fault
  }
}

async function canBuildOn(
  address: Address,
  facts: ServerFacts,
  parent: BaseFacts,
  options: BaseOptions,
): Promise<boolean> {
  const { signal } = options
  if (facts.versionNumber < 170_000 || parent.form !== 'physical') return false
  if (parent.details['systemId'] !== facts.systemId || parent.details['manifest'] !== '2') {
    return false
  }
  if (parent.version.split('.')[0] !== facts.version.split('.')[0]) return false
  await using session = await openSession(address, { signal })
  const [row] = await session.query('show summarize_wal', { signal })
  return row?.['summarize_wal'] === 'on'
}

class BaseTaker {
  readonly #address: Address
  readonly #facts: ServerFacts
  readonly #sink: BaseSink
  readonly #options: BaseOptions
  readonly #incremental: boolean
  readonly #taken = new Map<string, Taken>()
  readonly #crc = new Crc32c()
  readonly #patched = new Map<string, { readonly sizeBytes: number }>()
  readonly #damaged: DamagedPage[] = []
  readonly #inFlight = new Set<Promise<void>>()
  readonly #manifest: Buffer[] = []
  #failure: { readonly error: unknown } | undefined
  /** The file whose bytes come now: stored as it is, or rewritten. */
  #blocks: { readonly path: string; readonly writer: BlockWriter } | undefined
  #openFile: OpenFile | undefined
  /** The label as stored, when it is not as it came. */
  #label: Buffer | undefined
  #superuser = 'postgres'
  #manifestVersion = ''
  #manifestSize = 0
  #start = 0n
  #startTimeline = 0
  #end = 0n
  #endTimeline = 0
  #sizeBytes = 0n
  #tablespaces: readonly Tablespace[] = []

  constructor(
    address: Address,
    facts: ServerFacts,
    sink: BaseSink,
    options: BaseOptions,
    incremental: boolean,
  ) {
    this.#address = address
    this.#facts = facts
    this.#sink = sink
    this.#options = options
    this.#incremental = incremental
  }

  async run(): Promise<BaseFacts> {
    const { signal, progress } = this.#options
    await using session = await openSession(this.#address, { signal })
    const startedUs = await clockUs(session, signal)
    const settings = await readSettings(session, signal)
    this.#superuser = await readSuperuser(session, signal)
    progress.phase = 'wait for a checkpoint'
    const wire = await openBulkSender(this.#address, { signal })
    try {
      await this.#reserve(wire, signal)
      if (this.#incremental) await this.#upload(wire, signal)
      await this.#receive(wire, signal)
    } finally {
      wire.close()
    }
    await this.#finishManifest()
    await this.#recheck(session, signal)
    const consistentUs = await clockUs(session, signal)
    return this.#baseFacts(startedUs, consistentUs, settings)
  }

  // A slot for the length of the backup keeps the WAL that the base includes; without a free one the server's
  // wal_keep_size must do.
  async #reserve(wire: Wire, signal: AbortSignal): Promise<void> {
    const name = `redoubt_base_${process.pid}_${Date.now()}`
    try {
      await wire.query(
        `CREATE_REPLICATION_SLOT "${name}" TEMPORARY PHYSICAL RESERVE_WAL`,
        signal,
        'reserve the log of the base',
      )
    } catch (error) {
      if (!isFault(error, 'engine')) throw error
      this.#options.log.info('takes the base without a slot of its own', { cause: error.message })
    }
  }

  async #upload(wire: Wire, signal: AbortSignal): Promise<void> {
    const parent = this.#options.parent
    if (!parent) return
    try {
      await uploadManifest(wire, parent.files.read(manifestName, { signal }), signal)
    } catch (error) {
      if (isFault(error, 'engine', 'unsupported')) throw new IncrementalRefused(error)
      throw error
    }
  }

  async #receive(wire: Wire, signal: AbortSignal): Promise<void> {
    const { progress, log, limitBytesPerSecond } = this.#options
    const command = {
      serverVersion: this.#facts.versionNumber,
      label: 'redoubt',
      limitBytesPerSecond,
      incremental: this.#incremental,
    }
    const onNotice = (said: string) => log.info('the server says', { said })
    let archive: ArchiveReader | undefined
    try {
      for await (const event of readBackup(wire, command, { signal, onNotice })) {
        if (event.kind === 'archive') {
          archive?.finish()
          archive = new ArchiveReader(event.oid)
          progress.phase = 'copy files'
        } else if (event.kind === 'manifest') {
          archive?.finish()
          archive = undefined
        } else if (event.kind === 'data') {
          for (const bytes of event.pieces) {
            progress.doneBytes += bytes.length
            const wait = archive
              ? this.#takeArchive(archive, bytes, signal)
              : this.#takeManifest(bytes)
            if (wait) await wait
          }
        } else this.#takePoint(event)
        if (this.#failure) throw this.#failure.error
      }
      archive?.finish()
    } catch (error) {
      this.#openFile?.queue.end(error)
      await Promise.allSettled(this.#inFlight)
      const before = this.#start === 0n
      if (this.#incremental && before && isFault(error, 'engine'))
        throw new IncrementalRefused(error)
      throw error
    }
    while (this.#inFlight.size > 0) await Promise.all(this.#inFlight)
    if (this.#failure) throw (this.#failure as { error: unknown }).error
  }

  #takePoint(event: Extract<BackupEvent, { kind: 'begins' | 'tablespaces' | 'ends' }>): void {
    const { progress } = this.#options
    switch (event.kind) {
      case 'begins':
        this.#start = event.start
        this.#startTimeline = event.timeline
        break
      case 'tablespaces':
        this.#tablespaces = event.list
        progress.totalBytes = event.list.reduce((sum, one) => sum + (one.sizeBytes ?? 0), 0)
        break
      case 'ends':
        this.#end = event.end
        this.#endTimeline = event.timeline
        break
      default:
        event satisfies never
    }
  }

  #takeManifest(bytes: Buffer): undefined {
    this.#manifestSize += bytes.length
    if (this.#manifestSize > manifestBytesMax) {
      throw new Fault('full', `read the backup manifest: longer than ${manifestBytesMax} bytes`)
    }
    // What was read is written over: see `openBulkSender`.
    this.#manifest.push(Buffer.from(bytes))
  }

  // A promise only where there is something to wait for: this is called for each 32 KiB.
  #takeArchive(
    archive: ArchiveReader,
    bytes: Buffer,
    signal: AbortSignal,
  ): Promise<void> | undefined {
    if (this.#blocks && archive.pass(bytes.length)) return this.#blocks.writer.write(bytes)
    return this.#takeEvents(archive, bytes, signal)
  }

  async #takeEvents(archive: ArchiveReader, bytes: Buffer, signal: AbortSignal): Promise<void> {
    for (const event of archive.feed(bytes)) {
      if (event.kind === 'entry') await this.#begin(archive.rooted(event.entry.path), event.entry)
      else if (event.kind === 'bytes') {
        const open = this.#openFile
        const wait = this.#blocks?.writer.write(event.bytes)
        if (wait) await wait
        if (!open) continue
        open.take(event.bytes)
        await open.queue.push(Buffer.from(event.bytes), event.bytes.length, signal)
      } else this.#endFile()
    }
  }

  async #begin(path: string, entry: TarEntry): Promise<void> {
    const sink = this.#sink
    this.#options.progress.current = path
    if (entry.kind === 'dir') {
      if (path !== '') await sink.node(path, { ...attributes(entry), kind: 'dir' })
      return
    }
    if (entry.kind === 'symlink') {
      // Tablespaces are stored as folders in the place of their links; where they belong stands in the facts.
      if (/^pg_tblspc\/\d+$/.test(path)) return
      const target = Buffer.from(entry.link, 'utf8')
      await sink.node(path, { ...attributes(entry), kind: 'symlink', target })
      return
    }
    const whole = this.#incremental ? wholePath(path) : undefined
    if (whole === undefined && !(this.#incremental && path === 'backup_label')) {
      this.#sizeBytes += BigInt(entry.sizeBytes)
      const writer = sink.blocks(path, fileEntry(entry, entry.sizeBytes), this.#inspection(path))
      this.#blocks = { path, writer }
      return
    }
    while (this.#inFlight.size >= openFilesMax) await Promise.race(this.#inFlight)
    const open = new OpenFile(path, entry, this.#crc)
    this.#openFile = open
    const stored = whole === undefined ? this.#storeLabel(open) : this.#storePatch(open, whole)
    this.#own(
      stored.catch((error: unknown) => {
        open.queue.end(error)
        throw error
      }),
    )
  }

  #own(work: Promise<void>): void {
    const job: Promise<void> = work
      .catch((error: unknown) => {
        this.#failure ??= { error }
      })
      .finally(() => this.#inFlight.delete(job))
    this.#inFlight.add(job)
  }

  #inspection(path: string) {
    const { dataChecksums, versionNumber } = this.#facts
    const firstBlock = dataChecksums ? firstBlockOf(path) : undefined
    return inspectPages({ firstBlock, before: this.#start, isSummed: versionNumber >= 130_000 })
  }

  #endFile(): void {
    const [blocks, open] = [this.#blocks, this.#openFile]
    this.#blocks = undefined
    this.#openFile = undefined
    if (blocks) this.#own(this.#endBlocks(blocks.path, blocks.writer))
    if (!open) return
    this.#taken.set(open.path, open.taken)
    open.queue.end()
  }

  async #endBlocks(path: string, writer: BlockWriter): Promise<void> {
    const written = await writer.end()
    const { sum, damaged } = joinSaid(written)
    this.#taken.set(path, { sizeBytes: written.sizeBytes, sum })
    for (const page of damaged.slice(0, damagedMax)) this.#damaged.push({ path, page })
  }

  async #storePatch(open: OpenFile, whole: string): Promise<void> {
    const { head, rest } = await readHead(open)
    const sizeBytes = wholeSizeBytes(head)
    this.#sizeBytes += BigInt(sizeBytes)
    this.#patched.set(whole, { sizeBytes })
    const extents = this.#checked(toExtents(head, rest, open.path), whole)
    await this.#sink.patch(whole, fileEntry(open.entry, sizeBytes), extents)
  }

  async *#checked(
    extents: AsyncIterable<Extent>,
    path: string,
  ): AsyncGenerator<Extent, void, void> {
    const first = this.#facts.dataChecksums ? firstBlockOf(path) : undefined
    for await (const extent of extents) {
      const page = extent.offset / extent.bytes.length
      if (first !== undefined && !isSound(extent.bytes, 0, first + page, this.#start)) {
        this.#damaged.push({ path, page })
      }
      yield extent
    }
  }

  // The label of an incremental backup says so, and the server would refuse to start from it: what is stored here is
  // a whole backup.
  async #storeLabel(open: OpenFile): Promise<void> {
    const text = (await collect(open.queue, open.path)).toString('utf8')
    const bytes = Buffer.from(text.replace(/^INCREMENTAL FROM (?:LSN|TLI):.*\n/gm, ''), 'utf8')
    this.#label = bytes
    await this.#sink.file(open.path, fileEntry(open.entry, bytes.length), once(bytes))
  }

  // Compares what came with the manifest, and stores that: as it came, or made anew for the whole that an incremental
  // backup was turned into.
  async #finishManifest(): Promise<void> {
    if (this.#facts.versionNumber < 130_000) return
    const bytes = Buffer.concat(this.#manifest)
    const manifest = parseManifest(bytes)
    compareTaken(manifest, this.#taken)
    const rewritten = { patched: this.#patched, label: this.#label, crc: this.#crc }
    const stored = this.#incremental ? formatManifest(wholeManifest(manifest, rewritten)) : bytes
    const nowNs = BigInt(Date.now()) * 1_000_000n
    await this.#sink.file(manifestName, manifestEntry(stored.length, nowNs), once(stored))
    this.#manifestVersion = String(manifest.version)
  }

  // A page that was written while it was read looks damaged for a moment: what looks so is read again.
  async #recheck(session: Session, signal: AbortSignal): Promise<void> {
    const { log } = this.#options
    const still: DamagedPage[] = []
    for (const page of this.#damaged) {
      if (!(await isSoundNow(session, page, signal))) still.push(page)
    }
    this.#damaged.splice(0, this.#damaged.length, ...still)
    for (const { path, page } of still) {
      log.error('found a page with a wrong checksum on the source', { path, page })
    }
  }

  #baseFacts(startedUs: bigint, consistentUs: bigint, settings: string): BaseFacts {
    const { systemId, version } = this.#facts
    const tablespaces = Object.fromEntries(
      this.#tablespaces.flatMap(({ oid, location }) =>
        oid === undefined || location === undefined ? [] : [[oid, location]],
      ),
    )
    return {
      engine: 'postgres',
      flavor: this.#facts.flavor,
      version,
      form: 'physical',
      first: positionOf({ systemId, timeline: this.#startTimeline }, this.#start),
      consistent: positionOf({ systemId, timeline: this.#endTimeline }, this.#end),
      startedUs,
      consistentUs,
      sizeBytes: this.#sizeBytes,
      details: {
        systemId,
        walSegmentBytes: String(this.#facts.segmentBytes),
        dataChecksums: this.#facts.dataChecksums ? 'on' : 'off',
        manifest: this.#manifestVersion,
        tablespaces: JSON.stringify(tablespaces),
        settings,
        superuser: this.#superuser,
        incremental: this.#incremental ? 'yes' : 'no',
        patchedFiles: String(this.#patched.size),
        ...(this.#damaged.length === 0
          ? {}
          : { damagedPages: this.#damaged.map((one) => `${one.path}:${one.page}`).join(' ') }),
      },
    }
  }
}
