import { createHash } from 'node:crypto'
import { Fault } from '#base/faults'
import type { BaseEntry } from '#engines'
import type { ColumnLoad, Program } from './catalog.ts'

/**
 * The layout of a logical base; docs/guide/protect-mysql-and-mariadb.md shows how stock clients load it.
 *
 *     catalog.jsonl                       one object a line, in the order in which a restore makes them
 *     load.sql                            the same for the stock client: `mysql --local-infile=1 <load.sql`
 *     users.sql                           accounts and grants, where the backup user may read them
 *     data/<database>/<table>/00000.tsv   rows, as LOAD DATA takes them
 */
export const layoutName = 'redoubt-logical-1'
export const catalogPath = 'catalog.jsonl'
export const loadPath = 'load.sql'
export const usersPath = 'users.sql'

/** Text of the source: as it is when it is UTF-8, else base64. */
type Text = { readonly text: string } | { readonly base64: string }

export type StoredFile = {
  readonly path: string
  readonly rows: number
  readonly sizeBytes: number
  /**
   * The sum, modulo 2^64 and in hexadecimal, of the XXH64 (seed 0) of each line, its end included: in any order of the
   * rows the same. Columns of MySQL's JSON, which are the last, are left out, but not the tab before them. Bases
   * before this was recorded have none, nor has a table that has no other columns.
   */
  readonly digest?: string | undefined
}

export type StoredObject =
  | { readonly kind: 'database'; readonly name: string; readonly create: string }
  | {
      readonly kind: 'table'
      readonly database: string
      readonly name: string
      readonly engine: string
      readonly create: string
      readonly versioned: boolean
      readonly columns: readonly { readonly name: string; readonly load: ColumnLoad }[]
      readonly files: readonly StoredFile[]
    }
  | {
      readonly kind: 'sequence'
      readonly database: string
      readonly name: string
      readonly create: string
      readonly next: string
      readonly cycles: string
    }
  | {
      readonly kind: 'view'
      readonly database: string
      readonly name: string
      readonly create: Text
      readonly charset: string
      readonly collation: string
      readonly columns: readonly string[]
    }
  | ({ readonly kind: 'program'; readonly program: Program['kind']; readonly create: Text } & Omit<
      Program,
      'kind' | 'create'
    >)

export type StoredTable = Extract<StoredObject, { kind: 'table' }>

export function toText(bytes: Buffer): Text {
  const text = bytes.toString('utf8')
  return Buffer.from(text).equals(bytes) ? { text } : { base64: bytes.toString('base64') }
}

export function fromText(text: Text): Buffer {
  return 'text' in text ? Buffer.from(text.text) : Buffer.from(text.base64, 'base64')
}

const nameMax = 120

/** A name as one component of a path, on any file system: other bytes than letters and digits as %XX, cut when long. */
export function pathName(name: string): string {
  const plain = [...Buffer.from(name)]
    .map((byte) => {
      const char = String.fromCharCode(byte)
      return /[A-Za-z0-9_$-]/.test(char) ? char : `%${byte.toString(16).padStart(2, '0')}`
    })
    .join('')
  if (plain.length <= nameMax) return plain
  const sum = createHash('sha256').update(name).digest('hex').slice(0, 16)
  return `${plain.slice(0, nameMax - 20)}~${sum}`
}

export function dataPath(table: { readonly database: string; readonly name: string }): string {
  return `data/${pathName(table.database)}/${pathName(table.name)}`
}

export function chunkPath(
  table: { readonly database: string; readonly name: string },
  index: number,
): string {
  return `${dataPath(table)}/${String(index).padStart(5, '0')}.tsv`
}

type Folder = BaseEntry<'dir' | 'fifo' | 'socket'>
type Attributes = Omit<Folder, 'kind'>

function attributes(mode: number, timeUs: bigint): Attributes {
  const ns = timeUs * 1000n
  const none = { inode: 0n, device: 0n, links: 1, xattrs: [], uid: 0, gid: 0 }
  return { mode, mtimeNs: ns, atimeNs: ns, ctimeNs: ns, ...none }
}

/** Size 0: a stream's length is known at its end only. */
export function fileEntry(timeUs: bigint): BaseEntry<'file'> {
  return { kind: 'file', sizeBytes: 0n, ...attributes(0o600, timeUs) }
}

export function folderEntry(timeUs: bigint): Folder {
  return { kind: 'dir', ...attributes(0o700, timeUs) }
}

const lineMaxBytes = 256 * 1024 * 1024

/** Reads the catalog, line by line. */
export async function* readCatalogLines(
  content: AsyncIterable<Buffer>,
): AsyncGenerator<StoredObject, void, void> {
  let parts: Buffer[] = []
  let size = 0
  for await (const chunk of content) {
    let start = 0
    for (;;) {
      const end = chunk.indexOf(10, start)
      if (end < 0) break
      parts.push(chunk.subarray(start, end))
      yield parseLine(Buffer.concat(parts))
      parts = []
      size = 0
      start = end + 1
    }
    parts.push(Buffer.from(chunk.subarray(start)))
    size += chunk.length - start
    if (size > lineMaxBytes) throw new Fault('corrupt', `read ${catalogPath}: a line has no end`)
  }
  if (size > 0) throw new Fault('corrupt', `read ${catalogPath}: the last line has no end`)
}

function parseLine(line: Buffer): StoredObject {
  try {
    return JSON.parse(line.toString()) as StoredObject
  } catch (error) {
    throw new Fault('corrupt', `read ${catalogPath}: a line is no JSON`, { cause: error })
  }
}
