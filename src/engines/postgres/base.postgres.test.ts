import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { silentLog } from '#base/log'
import { createProgress } from '#base/progress'
import type { BaseFacts, BaseOptions } from '#engines'
import { DirectoryBase } from '../../../test/support/directory-base.ts'
import { giveToServerUser, runAsServerUser } from '../../../test/support/servers/process.ts'
import { service } from '../../../test/support/servers/services.ts'
import {
  type PostgresServer,
  postgresVersion,
  startPostgres,
} from '../../../test/support/servers/postgres.ts'
import { manifestName } from './base.ts'
import { parseManifest } from './manifest.ts'
import { Crc32c, formatCrc32c } from './page-sums.ts'
import { isNewPage, pageChecksum, storedChecksum } from './pages.kernel.ts'
import { postgres } from './postgres.ts'

const options = (more: Partial<BaseOptions> = {}): BaseOptions => ({
  signal: AbortSignal.timeout(600_000),
  progress: createProgress('base'),
  log: silentLog,
  parallel: 2,
  ...more,
})

async function take(server: PostgresServer, base: DirectoryBase, more?: Partial<BaseOptions>) {
  await using engine = await postgres.open(server.url, options())
  return await engine.takeBase(base, options(more))
}

/**
 * What pg_verifybackup says. The packages of other versions than 17 hold no tools: 17's own reads those of older ones, save
 * their log; 18 has another pg_control, so its files are compared with the manifest here.
 */
async function verify(server: PostgresServer, base: DirectoryBase): Promise<string> {
  giveToServerUser(base.path)
  if (server.version === '17') return server.tool('pg_verifybackup', base.path)
  if (server.version === '18') return compareFiles(base)
  const { bin } = await service('postgres17')
  return runAsServerUser([`${bin}/pg_verifybackup`, '--no-parse-wal', base.path])
}

test('a base taken under load passes pg_verifybackup, tablespaces and odd names included', async () => {
  await using server = await startPostgres()
  const space = server.makeFolder('space one')
  await server.query(`create tablespace "odd ""one""" location '${space}'`)
  await server.query('create database "shop 🛒 ""x"""')
  await server.query(
    `create table "t
      t" (a int primary key, b text) tablespace "odd ""one"""; insert into "t
      t" select g, repeat('y', 500) from generate_series(1, 20000) g`,
    undefined,
    'shop 🛒 "x"',
  )
  await server.query('create table busy (a int)')
  let stop = false
  const load = (async () => {
    while (!stop) await server.query('insert into busy select generate_series(1, 1000)')
  })()
  const base = new DirectoryBase(server.makeFolder('base'))
  const progress = createProgress('base')
  const facts = await take(server, base, { progress })
  stop = true
  await load
  assert.match(await verify(server, base), /successfully verified/)
  assert.ok(progress.doneBytes > 20_000_000)
  assert.deepEqual(Object.values(JSON.parse(facts.details['tablespaces'] ?? '')), [space])
  assert.ok(facts.first.at < facts.consistent.at)
  assert.equal(facts.details['damagedPages'], undefined)
})

test('a page with a wrong checksum is named, and the base is still taken', async () => {
  await using server = await startPostgres()
  await server.query(
    'create table t as select g, repeat(md5(g::text), 9) from generate_series(1, 5000) g',
  )
  const [row] = await server.query<{ file: string }>("select pg_relation_filepath('t') as file")
  await server.stop()
  const file = path.join(server.dataDir, row?.file ?? '')
  const bytes = readFileSync(file)
  const pages = bytes.length / 8192
  for (let page = 0; page < pages; page += 1) {
    if (isNewPage(bytes, page * 8192)) continue
    assert.equal(storedChecksum(bytes, page * 8192), pageChecksum(bytes, page * 8192, page))
  }
  bytes[3 * 8192 + 5000] = (bytes[3 * 8192 + 5000] ?? 0) ^ 1
  writeFileSync(file, bytes)
  await server.start()
  const base = new DirectoryBase(server.makeFolder('base'))
  const said: string[] = []
  const log = { ...silentLog, error: (words: string) => said.push(words) }
  const facts = await take(server, base, { log })
  assert.equal(facts.details['damagedPages'], `${row?.file}:3`)
  assert.equal(said.length, 1)
})

function compareFiles(base: DirectoryBase): string {
  const crc = new Crc32c()
  const manifest = JSON.parse(readFileSync(path.join(base.path, manifestName), 'utf8'))
  for (const file of manifest.Files) {
    const bytes = readFileSync(path.join(base.path, file.Path))
    assert.equal(bytes.length, file.Size, file.Path)
    if (!file.Checksum) continue
    assert.equal(file['Checksum-Algorithm'], 'CRC32C')
    assert.equal(formatCrc32c(crc.extend(0, bytes)), file.Checksum, file.Path)
  }
  return 'backup successfully verified'
}

/** Bases are incremental from 17 on. */
const summarizing = ['17', '18'].includes(postgresVersion()) ? postgresVersion() : '17'

test('an incremental base becomes a whole one: changed, grown, truncated, new and dropped relations', async () => {
  await using server = await startPostgres({
    version: summarizing,
    settings: { summarize_wal: 'on' },
  })
  await server.query(`
    create table big as select g, repeat(md5(g::text), 10) as b from generate_series(1, 30000) g;
    create table shrinking as select g, repeat('s', 300) from generate_series(1, 20000) g;
    create table grown as select g from generate_series(1, 5000) g;
    create table dropped as select 1`)
  const first = new DirectoryBase(server.makeFolder('first'))
  const parent = await take(server, first)
  assert.equal(parent.details['incremental'], 'no')
  await server.query(`
    update big set b = 'changed' where g in (1, 20000);
    delete from shrinking where ctid > '(50,0)';
    insert into grown select generate_series(1, 50000);
    drop table dropped;
    create table fresh as select generate_series(1, 1000)`)
  await server.query('vacuum (truncate) shrinking')
  await server.query(
    `insert into shrinking select g, repeat('t', 300) from generate_series(1, 3000) g`,
  )
  await server.query('checkpoint')
  const second = new DirectoryBase(server.makeFolder('second'), first)
  const facts = await take(server, second, { parent: { facts: parent, files: first } })
  assert.equal(facts.details['incremental'], 'yes')
  assert.ok(second.patched.length > 100, `${second.patched.length} files patched`)
  assert.match(await verify(server, second), /successfully verified/)
  const third = new DirectoryBase(server.makeFolder('third'), second)
  await server.query('update big set b = b || g where g % 1000 = 0')
  const again = await take(server, third, { parent: { facts, files: second } })
  assert.equal(again.details['incremental'], 'yes')
  assert.match(await verify(server, third), /successfully verified/)
  await assertSameAsServer(server, third)
})

/** Opens a base as a server of its own and compares table by table. */
async function assertSameAsServer(source: PostgresServer, base: DirectoryBase): Promise<void> {
  await using copy = await startPostgres({ version: source.version, dataDir: base.path })
  for (const table of ['big', 'shrinking', 'grown', 'fresh']) {
    const sql = `select count(*), sum(hashtextextended(t::text, 0)) from ${table} t`
    assert.deepEqual(await copy.query(sql), await source.query(sql), table)
  }
}

test('without summaries that reach back to the parent a whole base is taken', async () => {
  await using server = await startPostgres({
    version: summarizing,
    settings: { summarize_wal: 'on' },
  })
  const first = new DirectoryBase(server.makeFolder('first'))
  const parent = await take(server, first)
  await server.restart({ summarize_wal: 'off' })
  await server.query('create table t as select generate_series(1, 1000); checkpoint')
  await server.restart({ summarize_wal: 'on' })
  const foreign: BaseFacts = { ...parent, details: { ...parent.details, systemId: '1' } }
  const second = new DirectoryBase(server.makeFolder('second'), first)
  const facts = await take(server, second, { parent: { facts: foreign, files: first } })
  assert.equal(facts.details['incremental'], 'no')
  assert.match(await verify(server, second), /successfully verified/)
})

test('a base can be taken from a standby, and at a limited rate', async () => {
  await using server = await startPostgres()
  await server.query('create table t as select generate_series(1, 100000) as a')
  const copy = new DirectoryBase(server.makeFolder('standby'))
  await take(server, copy)
  writeFileSync(path.join(copy.path, 'standby.signal'), '')
  giveToServerUser(copy.path)
  await using standby = await startPostgres({
    version: server.version,
    dataDir: copy.path,
    settings: {
      primary_conninfo: `host=127.0.0.1 port=${server.port} user=postgres password=elephant-secret`,
    },
  })
  const base = new DirectoryBase(standby.makeFolder('base'))
  const begun = performance.now()
  await take(standby, base, { limitBytesPerSecond: 20_000_000 })
  assert.ok(performance.now() - begun > 1000, 'the limit was not kept')
  assert.match(await verify(server, base), /successfully verified/)
})

test('a byte that changes in the manifest is found', async () => {
  await using server = await startPostgres()
  const base = new DirectoryBase(server.makeFolder('base'))
  await take(server, base)
  const bytes = readFileSync(path.join(base.path, manifestName))
  assert.ok(parseManifest(bytes).files.length > 900)
  const at = bytes.indexOf('"Size": ') + 8
  bytes[at] = (bytes[at] ?? 0) ^ 1
  assert.throws(
    () => parseManifest(bytes),
    (error) => isFault(error, 'corrupt'),
  )
})
