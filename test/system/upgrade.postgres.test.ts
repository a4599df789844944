import assert from 'node:assert/strict'
import { cpSync } from 'node:fs'
import { test } from 'node:test'
import { Guarded, hear, untilGuarded, untilNewBase, untilShipped } from '../support/guarded.ts'
import { assertMoments } from '../support/moment-trials.ts'
import { FolderLandings, postgresNumbers } from '../support/numbers.ts'
import { postgresVersion, startPostgres } from '../support/servers/postgres.ts'

/** From the version of this run to the newest that every run has, or its own: a new cluster at the same address. */
test('a PostgreSQL that is upgraded by dump and load is told of, gets a base, and comes back as of before and after', async () => {
  const from = postgresVersion()
  await using old = await startPostgres({ version: from })
  await old.query('create table t (n int primary key); insert into t values (1), (2)')
  using guarded = await Guarded.begin('upgrade')
  const protection = guarded.protect(old.url)
  await using _ = protection
  const { lastBase: firstBase } = await untilGuarded(protection)
  await old.query('insert into t values (3)')
  const before = await postgresNumbers(old).momentAfterAll()
  await old.query('delete from t where n = 3')
  await untilShipped(protection)
  const rows = await old.query<{ n: number }>('select n from t order by n')
  await old.stop()
  const to = from === '18' ? '18' : '17'
  // Made anew, not copied from where the old one came: a cluster of its own.
  const initdb = ['--wal-segsize=1']
  await using upgraded = await startPostgres({ version: to, port: old.port, initdb })
  await upgraded.query('create table t (n int primary key)')
  for (const { n } of rows) await upgraded.query('insert into t values ($1)', [n])
  await untilNewBase(protection, firstBase)
  await upgraded.query('insert into t values (4)')
  const after = await postgresNumbers(upgraded).momentAfterAll()
  await upgraded.query('delete from t')
  await untilShipped(protection)
  await protection[Symbol.asyncDispose]()
  const report = await guarded.window()
  assert.equal(report.windows.length, 2, JSON.stringify(report))
  assert.equal(report.gaps.length, 1)
  assert.match(String(report.gaps[0]?.said), /the server is system/)
  assert.ok(report.source.version.startsWith(to), report.source.version)
  await assertMoments(new FolderLandings(guarded, from), [[before, [1, 2, 3]]])
  await assertMoments(new FolderLandings(guarded, to), [
    [after, [1, 2, 4]],
    ['latest', []],
  ])
})

test('a PostgreSQL that was set back to an older state is refused: its log is another by the same name', async () => {
  await using server = await startPostgres({ initdb: ['--wal-segsize=1'] })
  await server.query('create table t (n int primary key)')
  using guarded = await Guarded.begin('set-back')
  await server.stop()
  const snapshot = guarded.scratch.join('snapshot')
  cpSync(server.dataDir, snapshot, { recursive: true })
  await server.start()
  const protection = guarded.protect(server.url)
  await using _ = protection
  await untilGuarded(protection)
  await server.query('insert into t select generate_series(1, 1000)')
  await untilShipped(protection)
  await server.stop()
  await using older = await startPostgres({ dataDir: snapshot, port: server.port })
  await assert.rejects(
    hear(protection, () => false),
    /ended with 5: .*it was set back to an older state/s,
  )
  const to = guarded.scratch.join('restored')
  await guarded.restored('--to', to)
  await older.stop()
  await using target = await startPostgres({ dataDir: to })
  assert.deepEqual(await target.query('select count(*)::int as c from t'), [{ c: 1000 }])
})
