import { createHash } from 'node:crypto'
import { Fault } from '#base/faults'

/** A file that a backup manifest lists. */
export type ManifestFile = {
  /** As the server writes it, raw JSON members kept: `Path` or `Encoded-Path`. */
  readonly path: string
  readonly sizeBytes: number
  readonly modified: string
  readonly algorithm?: string | undefined
  readonly checksum?: string | undefined
}

type WalRange = { readonly timeline: number; readonly start: string; readonly end: string }

/** A backup manifest. https://www.postgresql.org/docs/current/backup-manifest-format.html */
export type Manifest = {
  readonly version: number
  readonly systemId?: string | undefined
  readonly files: readonly ManifestFile[]
  readonly walRanges: readonly WalRange[]
}

type RawFile = {
  readonly Path?: string
  readonly 'Encoded-Path'?: string
  readonly Size: number
  readonly 'Last-Modified': string
  readonly 'Checksum-Algorithm'?: string
  readonly Checksum?: string
}

type Raw = {
  readonly 'PostgreSQL-Backup-Manifest-Version': number
  readonly Files: readonly RawFile[]
  readonly 'WAL-Ranges': readonly {
    readonly Timeline: number
    readonly 'Start-LSN': string
    readonly 'End-LSN': string
  }[]
  readonly 'Manifest-Checksum': string
}

/** Reads a manifest and compares its own checksum, which covers all bytes before its last line. */
export function parseManifest(bytes: Buffer): Manifest {
  const last = bytes.lastIndexOf('"Manifest-Checksum"')
  const sum = createHash('sha256')
    .update(bytes.subarray(0, Math.max(last, 0)))
    .digest('hex')
  let raw: Raw
  try {
    raw = JSON.parse(bytes.toString('utf8')) as Raw
  } catch (error) {
    throw new Fault('corrupt', 'read the backup manifest: it is no JSON', { cause: error })
  }
  if (last < 0 || raw['Manifest-Checksum'] !== sum) {
    throw new Fault('corrupt', `read the backup manifest: its checksum is wrong, ${sum} is right`)
  }
  const systemId = /"System-Identifier": (\d+)/.exec(bytes.toString('latin1', 0, 200))?.[1]
  return {
    version: raw['PostgreSQL-Backup-Manifest-Version'],
    systemId,
    files: raw.Files.map(toFile),
    walRanges: raw['WAL-Ranges'].map((range) => ({
      timeline: range.Timeline,
      start: range['Start-LSN'],
      end: range['End-LSN'],
    })),
  }
}

function toFile(raw: RawFile): ManifestFile {
  const encoded = raw['Encoded-Path']
  return {
    path: raw.Path ?? Buffer.from(encoded ?? '', 'hex').toString('utf8'),
    sizeBytes: raw.Size,
    modified: raw['Last-Modified'],
    algorithm: raw['Checksum-Algorithm'],
    checksum: raw.Checksum,
  }
}

/** Writes a manifest in the server's own layout, one file a line, with its checksum. */
export function formatManifest(manifest: Manifest): Buffer {
  const lines = [`{ "PostgreSQL-Backup-Manifest-Version": ${manifest.version},`]
  if (manifest.systemId !== undefined) lines.push(`"System-Identifier": ${manifest.systemId},`)
  lines.push('"Files": [')
  for (const [index, file] of manifest.files.entries()) {
    lines.push(formatFile(file) + (index < manifest.files.length - 1 ? ',' : ''))
  }
  lines.push('],', '"WAL-Ranges": [')
  for (const [index, range] of manifest.walRanges.entries()) {
    const { timeline, start, end } = range
    const comma = index < manifest.walRanges.length - 1 ? ',' : ''
    lines.push(`{ "Timeline": ${timeline}, "Start-LSN": "${start}", "End-LSN": "${end}" }${comma}`)
  }
  lines.push('],', '')
  const body = Buffer.from(lines.join('\n'), 'utf8')
  const sum = createHash('sha256').update(body).digest('hex')
  return Buffer.concat([body, Buffer.from(`"Manifest-Checksum": "${sum}"}\n`)])
}

function formatFile(file: ManifestFile): string {
  const sum =
    file.algorithm === undefined || file.checksum === undefined
      ? ''
      : `, "Checksum-Algorithm": "${file.algorithm}", "Checksum": "${file.checksum}"`
  return `{ "Path": ${JSON.stringify(file.path)}, "Size": ${file.sizeBytes}, "Last-Modified": "${file.modified}"${sum} }`
}
