import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir, readFile, stat } from 'node:fs/promises'
import path from 'node:path'
import { isFault } from '#base/faults'
import { formatTimeUs } from '#base/time'
import type { Check, EngineKind } from '#engines'
import type { Session } from './connection.ts'
import { manifestName } from './base.ts'
import type { Layout } from './layout.ts'
import { type ManifestFile, parseManifest } from './manifest.ts'
import { Crc32c, formatCrc32c } from './page-sums.ts'
import { firstBlockOf, PageCheck } from './pages.ts'
import { ScratchCluster } from './scratch.ts'

/** Of many failures so many are named. */
const namedMax = 5

/** Restores into a scratch server and lets everything be read that a damage could hide in: see `EngineKind.prove`. */
export const provePostgres: EngineKind['prove'] = async (request, directory) => {
  const { signal, progress, base } = request
  const checks: Check[] = []
  await using cluster = await ScratchCluster.restore(request, directory, async (layout) => {
    progress.phase = 'check the files of the base'
    checks.push(await checkManifest(layout, signal))
  })
  const { result, supply } = cluster
  const last = result.last
  checks.push({
    name: 'recovery',
    ok: true,
    said:
      last === undefined
        ? `recovered to ${result.reached.at}; no transaction is in the log behind the base`
        : `recovered to ${result.reached.at}; last transaction ${last.id} of ${formatTimeUs(last.timeUs)}`,
  })
  const beatUs = supply?.finder.lastBeatUs
  checks.push({
    name: 'heartbeat',
    ok: true,
    said:
      beatUs === undefined
        ? 'no heartbeat is in the log up to there'
        : `the newest heartbeat up to there was written at ${formatTimeUs(beatUs)}`,
  })
  progress.phase = 'read all tables'
  for (const database of await cluster.databases(signal)) {
    await using session = await cluster.session(database, signal)
    checks.push(await readTables(session, database, signal))
    checks.push(await checkIndexes(session, database, signal))
  }
  // Stopped cleanly, every page is on disk with its checksum.
  progress.phase = 'check the pages'
  await cluster.server.stop('fast')
  if (base.details['dataChecksums'] === 'on') checks.push(await checkPages(cluster.layout, signal))
  return { result, checks }
}

// As pg_verifybackup does: every file of the manifest is there, has its size and its checksum.
async function checkManifest(layout: Layout, signal: AbortSignal): Promise<Check> {
  const name = 'manifest'
  const file = path.join(layout.dataDir, manifestName)
  const bytes = await readFile(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (!bytes) return { name, ok: true, said: 'the base has no manifest' }
  const wrong: string[] = []
  const { files } = parseManifest(bytes)
  let sizeBytes = 0
  for (const entry of files) {
    signal.throwIfAborted()
    // Not laid out: settings of the source, and log that comes from the archive.
    if (isReplaced(entry.path)) continue
    const full = path.join(layout.dataDir, entry.path)
    const there = await stat(full).catch(() => undefined)
    sizeBytes += entry.sizeBytes
    if (there?.size !== entry.sizeBytes) wrong.push(`${entry.path}: size`)
    else if (entry.checksum !== undefined && (await sumOf(full, entry)) !== entry.checksum) {
      wrong.push(`${entry.path}: checksum`)
    }
  }
  return {
    name,
    ok: wrong.length === 0,
    said:
      wrong.length === 0
        ? `${files.length} files of ${sizeBytes} bytes are as the manifest says`
        : `${wrong.length} files differ from the manifest: ${few(wrong)}`,
  }
}

function isReplaced(name: string): boolean {
  return (
    name === 'postgresql.auto.conf' ||
    name === 'standby.signal' ||
    name === 'recovery.signal' ||
    name.startsWith('pg_wal/')
  )
}

async function sumOf(file: string, { algorithm }: ManifestFile): Promise<string> {
  const bytes = createReadStream(file, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>
  if (algorithm !== 'CRC32C') {
    const hash = createHash((algorithm ?? '').toLowerCase())
    for await (const part of bytes) hash.update(part)
    return hash.digest('hex')
  }
  const crc = new Crc32c()
  let sum = 0
  for await (const part of bytes) sum = crc.extend(sum, part)
  return formatCrc32c(sum)
}

// The server copies each table to nowhere: every row is found, detoasted and put out.
async function readTables(session: Session, database: string, signal: AbortSignal): Promise<Check> {
  const tables = await session.query(
    `select format('%I.%I', n.nspname, c.relname) as name from pg_class c
     join pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'm') and c.relpersistence = 'p' and (c.relkind = 'r' or c.relispopulated)
     order by 1`,
    { signal },
  )
  const wrong: string[] = []
  for (const table of tables) {
    const name = table['name'] ?? ''
    const problem = await attempt(session, `copy (select * from ${name}) to '/dev/null'`, signal)
    if (problem !== undefined) wrong.push(`${name}: ${problem}`)
  }
  return {
    name: `tables of ${database}`,
    ok: wrong.length === 0,
    said:
      wrong.length === 0
        ? `all rows of ${tables.length} tables were read`
        : `${wrong.length} of ${tables.length} tables cannot be read: ${few(wrong)}`,
  }
}

// https://www.postgresql.org/docs/current/amcheck.html
async function checkIndexes(
  session: Session,
  database: string,
  signal: AbortSignal,
): Promise<Check> {
  const name = `indexes of ${database}`
  const absent = await attempt(session, 'create extension if not exists amcheck', signal)
  if (absent !== undefined) return { name, ok: true, said: `not checked, amcheck: ${absent}` }
  const indexes = await session.query(
    `select c.oid, format('%I.%I', n.nspname, c.relname) as name from pg_index i
     join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
     join pg_am a on a.oid = c.relam
     where a.amname = 'btree' and c.relkind = 'i' and i.indisready and i.indisvalid and c.relpersistence = 'p'`,
    { signal },
  )
  const wrong: string[] = []
  for (const index of indexes) {
    const sql = `select bt_index_check(${index['oid']}::oid::regclass, true)`
    const problem = await attempt(session, sql, signal)
    if (problem !== undefined) wrong.push(`${index['name']}: ${problem}`)
  }
  return {
    name,
    ok: wrong.length === 0,
    said:
      wrong.length === 0
        ? `${indexes.length} indexes stand up to amcheck`
        : `${wrong.length} of ${indexes.length} indexes are damaged: ${few(wrong)}`,
  }
}

async function attempt(
  session: Session,
  sql: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  try {
    await session.query(sql, { signal, doing: 'check' })
    return undefined
  } catch (error) {
    if (!isFault(error) || error.code === 'unreachable') throw error
    return error.message
  }
}

async function checkPages(layout: Layout, signal: AbortSignal): Promise<Check> {
  const wrong: string[] = []
  let count = 0
  for await (const name of relationFiles(layout.dataDir)) {
    signal.throwIfAborted()
    const block = firstBlockOf(name)
    if (block === undefined) continue
    const check = new PageCheck(name, block)
    const content = createReadStream(path.join(layout.dataDir, name), { highWaterMark: 1 << 20 })
    for await (const bytes of content) check.feed(bytes as Buffer)
    count += 1
    wrong.push(...check.damaged.map((page) => `${page.path}:${page.page}`))
  }
  return {
    name: 'page checksums',
    ok: wrong.length === 0,
    said:
      wrong.length === 0
        ? `the pages of ${count} files bear the right checksums`
        : `${wrong.length} pages bear wrong checksums: ${few(wrong)}`,
  }
}

async function* relationFiles(dataDir: string): AsyncGenerator<string, void, void> {
  for (const root of ['global', 'base', 'pg_tblspc']) yield* below(dataDir, root)
}

// A tablespace is a link to a folder.
async function* below(dataDir: string, folder: string): AsyncGenerator<string, void, void> {
  for (const entry of await readdir(path.join(dataDir, folder), { withFileTypes: true })) {
    const name = `${folder}/${entry.name}`
    if (entry.isDirectory() || entry.isSymbolicLink()) yield* below(dataDir, name)
    else yield name
  }
}

function few(list: readonly string[]): string {
  const more = list.length > namedMax ? `; and ${list.length - namedMax} more` : ''
  return list.slice(0, namedMax).join('; ') + more
}
