import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLog } from '#base/log'
import type { Finding } from '#change/finding'
import type { Use } from '#engines'
import { type PostgresServer, startPostgres } from '../../../test/support/servers/postgres.ts'
import { postgres } from './postgres.ts'

const options = () => ({ signal: AbortSignal.timeout(600_000), log: silentLog })

async function probe(server: PostgresServer, use: Use, url = server.url): Promise<Finding[]> {
  await using engine = await postgres.open(url, options())
  return await engine.probe(use, options())
}

const codes = (findings: readonly Finding[], severity: Finding['severity']) =>
  findings.filter((finding) => finding.severity === severity).map((finding) => finding.code)

test('a server that is set up well has nothing in the way', async () => {
  await using server = await startPostgres({
    settings: { fsync: 'on', max_slot_wal_keep_size: '1GB' },
  })
  assert.deepEqual(codes(await probe(server, 'protect'), 'blocks'), [])
  assert.deepEqual(codes(await probe(server, 'protect'), 'warns'), [])
})

test('all that is in the way is told at once, each with the statement that mends it', async () => {
  await using server = await startPostgres({
    settings: {
      wal_level: 'minimal',
      max_wal_senders: '0',
      max_replication_slots: '0',
      full_page_writes: 'off',
      synchronous_commit: 'local',
    },
  })
  await server.query('create unlogged table u (a int)')
  const findings = await probe(server, 'protect-strict')
  assert.deepEqual(codes(findings, 'blocks').toSorted(), [
    'max-replication-slots',
    'max-wal-senders',
    'not-synchronous',
    'synchronous-commit',
    'wal-level-minimal',
  ])
  assert.deepEqual(codes(findings, 'warns').toSorted(), [
    'fsync',
    'full-page-writes',
    'slot-without-limit',
  ])
  assert.ok(codes(findings, 'notes').includes('unlogged-tables'))
  for (const finding of findings)
    if (finding.severity === 'blocks') assert.ok(finding.mend, finding.code)
})

test('the statements that mend are valid and mend', async () => {
  await using server = await startPostgres({ settings: { fsync: 'on' } })
  const run = async (code: string, use: Use) => {
    const finding = (await probe(server, use)).find((one) => one.code === code)
    assert.ok(finding?.mend, code)
    for (const sql of finding.mend.split(/;(?:\s*--.*)?/)) if (sql.trim()) await server.query(sql)
    assert.equal(
      (await probe(server, use)).some((one) => one.code === code),
      false,
      code,
    )
  }
  await run('slot-without-limit', 'protect')
  await run('not-synchronous', 'protect-strict')
})

test('a role without the right, and a line of pg_hba.conf that is missing', async () => {
  await using server = await startPostgres()
  await server.query(`create role "od""d" login password 'p'`)
  const url = server.urlOf('postgres', encodeURIComponent('od"d'), 'p')
  const [finding] = (await probe(server, 'backup', url)).filter((one) => one.severity === 'blocks')
  assert.equal(finding?.code, 'no-replication-right')
  await server.query(finding?.mend ?? '')
  assert.deepEqual(codes(await probe(server, 'backup', url), 'blocks'), [])
  await server.query(
    `copy (select 'host all all all scram-sha-256' union all select 'local all all trust') to '${server.dataDir}/pg_hba.conf'`,
  )
  await server.query('select pg_reload_conf()')
  const after = await probe(server, 'backup', url)
  assert.deepEqual(codes(after, 'blocks'), ['replication-refused'])
})

test('a standby says that it is one, and cannot be strict', async () => {
  // pg_basebackup is there for 17 alone.
  await using server = await startPostgres({ version: '17' })
  const folder = server.makeFolder('standby')
  await server.query('select 1')
  server.tool('pg_basebackup', '-D', folder, '-R', '-X', 'stream', '-c', 'fast')
  await using standby = await startPostgres({
    version: '17',
    dataDir: folder,
    settings: {
      primary_conninfo: `host=127.0.0.1 port=${server.port} user=postgres password=elephant-secret`,
    },
  })
  const findings = await probe(standby, 'protect-strict')
  assert.ok(codes(findings, 'blocks').includes('strict-on-standby'))
  assert.ok(codes(findings, 'notes').includes('standby'))
  await using engine = await postgres.open(standby.url, options())
  assert.equal(await engine.beat(options()), false)
})
