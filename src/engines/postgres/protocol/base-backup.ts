import { Fault } from '#base/faults'
import { CopyBodies, type CopyPart } from './copy-bodies.ts'
import { decodeServerError, fromServer } from './faults.ts'
import { parseLsn } from '../lsn.ts'
import { decodeRow, type Wire } from './wire.ts'

/** What the server sends of a base backup, in order. */
export type BackupEvent =
  | { readonly kind: 'begins'; readonly start: bigint; readonly timeline: number }
  | { readonly kind: 'tablespaces'; readonly list: readonly Tablespace[] }
  /** A tar archive begins: of a tablespace, or of the data directory when there is no oid. */
  | { readonly kind: 'archive'; readonly oid: string | undefined }
  | { readonly kind: 'manifest' }
  /** Bytes of the archive or of the manifest that began last; they hold until more is asked for. */
  | { readonly kind: 'data'; readonly pieces: readonly Buffer[] }
  | { readonly kind: 'ends'; readonly end: bigint; readonly timeline: number }

export type Tablespace = {
  /** Undefined for the data directory itself. */
  readonly oid: string | undefined
  readonly location: string | undefined
  readonly sizeBytes: number | undefined
}

/** A checkpoint of a busy server takes minutes; a connection that is dead on one side says nothing at all. */
const silenceMaxMs = 900_000

export type BackupCommand = {
  readonly serverVersion: number
  readonly label: string
  readonly limitBytesPerSecond?: number | undefined
  readonly incremental: boolean
}

/**
 * The BASE_BACKUP command: keywords up to 14, options in parentheses from 15 on. Checkpoint at once, the WAL that it needs
 * included, page checksums left to us.
 * The vault hashes everything anyway: the manifest's sums are to tell that all came as the server read it, for which the
 * cheap ones do. https://www.postgresql.org/docs/current/protocol-replication.html
 */
export function formatBackupCommand(command: BackupCommand): string {
  const { serverVersion, limitBytesPerSecond } = command
  const label = command.label.replaceAll("'", "''")
  const rate = limitBytesPerSecond === undefined ? undefined : clampRate(limitBytesPerSecond)
  if (serverVersion < 150_000) {
    const manifest =
      serverVersion >= 130_000 ? "MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'" : undefined
    const max = rate === undefined ? undefined : `MAX_RATE ${rate}`
    const parts = [`LABEL '${label}'`, 'PROGRESS', 'FAST', 'WAL', 'NOWAIT', max]
    return ['BASE_BACKUP', ...parts, 'NOVERIFY_CHECKSUMS', manifest]
      .filter((part) => part !== undefined)
      .join(' ')
  }
  const options = [
    `LABEL '${label}'`,
    "TARGET 'client'",
    'PROGRESS',
    "CHECKPOINT 'fast'",
    'WAL',
    'WAIT false',
    'VERIFY_CHECKSUMS false',
    "MANIFEST 'yes'",
    "MANIFEST_CHECKSUMS 'CRC32C'",
    ...(rate === undefined ? [] : [`MAX_RATE ${rate}`]),
    ...(command.incremental ? ['INCREMENTAL'] : []),
  ]
  return `BASE_BACKUP (${options.join(', ')})`
}

/** The server takes 32 kB/s to 1 GB/s. */
function clampRate(limitBytesPerSecond: number): number {
  return Math.min(1_048_576, Math.max(32, Math.round(limitBytesPerSecond / 1024)))
}

/** Hands the parent's manifest to the server, which then knows what an incremental backup may leave out. */
export async function uploadManifest(
  wire: Wire,
  manifest: AsyncIterable<Buffer>,
  signal: AbortSignal,
): Promise<void> {
  const doing = 'upload the manifest of the last base'
  wire.sendQuery('UPLOAD_MANIFEST')
  await wire.expect(signal, doing, 'G')
  for await (const bytes of manifest) await wire.sendSlowly('d', bytes, signal)
  wire.send('c')
  await wire.finishQuery(signal, doing)
}

/** Runs BASE_BACKUP and reads it to its end. Warnings of the server go to `onNotice`. */
export async function* readBackup(
  wire: Wire,
  command: BackupCommand,
  options: { readonly signal: AbortSignal; readonly onNotice: (said: string) => void },
): AsyncGenerator<BackupEvent, void, void> {
  const { signal } = options
  const oneStream = command.serverVersion >= 150_000
  const bodies = new CopyBodies(oneStream)
  let isCopying = false
  let sets = 0
  let rows: (readonly (string | undefined)[])[] = []
  let tablespaces: Tablespace[] = []
  let copies = 0
  let failure: Fault | undefined
  wire.sendQuery(formatBackupCommand(command))
  for (;;) {
    const run = isCopying ? await wire.copyRun(signal, silenceMaxMs) : undefined
    if (run) {
      for (const part of bodies.read(run.bytes)) {
        const event = toEvent(part)
        if (event) yield event
      }
      continue
    }
    const message = await wire.next(signal, silenceMaxMs)
    if (!message)
      throw new Fault('timeout', `take a base backup: nothing came in ${silenceMaxMs} ms`)
    const { type, body } = message
    if (type === 'E') failure ??= fromServer(decodeServerError(body), 'take a base backup')
    if (type === 'Z') break
    if (failure) continue
    if (type === 'H') isCopying = true
    if (type === 'c') isCopying = false
    if (type === 'N') options.onNotice(decodeServerError(body).message)
    else if (type === 'T') rows = []
    else if (type === 'D') rows.push(decodeRow(body))
    else if (type === 'C') {
      sets += 1
      if (sets === 1) yield { kind: 'begins', ...readPoint(rows) }
      else if (sets === 2) {
        tablespaces = rows.map(readTablespace)
        yield { kind: 'tablespaces', list: tablespaces }
      } else if (rows.length > 0) {
        yield { kind: 'ends', ...lastPoint(rows) }
        rows = []
      }
    } else if (type === 'H' && !oneStream) {
      yield copies < tablespaces.length
        ? { kind: 'archive', oid: tablespaces[copies]?.oid }
        : { kind: 'manifest' }
      copies += 1
    }
  }
  if (failure) throw failure
}

// From 15 on one COPY carries all: a byte says what the message is.
function toEvent(part: CopyPart): BackupEvent | undefined {
  if (part.kind === 'data') return part
  const { body } = part
  const tag = String.fromCharCode(body[0] ?? 0)
  if (tag === 'm') return { kind: 'manifest' }
  if (tag === 'p') return undefined
  if (tag === 'n') {
    const name = body.toString('utf8', 1, body.indexOf(0, 1))
    return { kind: 'archive', oid: name === 'base.tar' ? undefined : name.replace(/\.tar$/, '') }
  }
  throw new Fault('protocol', `read a base backup: message ${JSON.stringify(tag)}`)
}

function readPoint(rows: readonly (readonly (string | undefined)[])[]) {
  const [lsn, timeline] = rows[0] ?? []
  if (lsn === undefined || timeline === undefined) {
    throw new Fault('protocol', 'read a base backup: no starting point came')
  }
  return { start: parseLsn(lsn), timeline: Number(timeline) }
}

function lastPoint(rows: readonly (readonly (string | undefined)[])[]) {
  const { start, timeline } = readPoint(rows)
  return { end: start, timeline }
}

function readTablespace(cells: readonly (string | undefined)[]): Tablespace {
  const [oid, location, size] = cells
  return { oid, location, sizeBytes: size === undefined ? undefined : Number(size) * 1024 }
}
