import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { silentLog } from '#base/log'
import { isFault } from '#base/faults'
import {
  Capture,
  checksums,
  requestOf,
  type StartServer,
  takeBase,
} from '../../../test/support/mysql-family-harness.ts'
import { makeEverything } from '../../../test/support/mysql-every-type.ts'
import { service } from '../../../test/support/servers/services.ts'
import type { FamilyServer } from '../../../test/support/servers/mysql-family.ts'
import { execFileSync } from 'node:child_process'
import { mysql } from './mysql.ts'

/** A logical base of a server of either family, and what comes of it. */
export function baseTests(start: StartServer): void {
  test('a base of every kind of object and value restores to the same, with our loader and with the stock client', async () => {
    await using server = await start()
    await makeEverything(server)
    const signal = AbortSignal.timeout(600_000)
    await using engine = await mysql.open(server.url, { signal, log: silentLog })
    using base = await takeBase(engine)
    const wanted = await describe(server)
    await using ours = await start()
    await mysql.restore(requestOf(base, undefined, ours.url))
    assert.deepEqual(await describe(ours), wanted)
    await using stock = await start({ settings: { 'local-infile': 'ON' } })
    execFileSync(
      await stockClient(stock),
      [
        '--no-defaults',
        ...stock.clientArgs,
        '--local-infile=1',
        '--default-character-set=utf8mb4',
        '--binary-mode',
      ],
      {
        cwd: base.files.path,
        input: readFileSync(`${base.files.path}/load.sql`),
        env: { ...process.env, MYSQL_PWD: 'dolphin-secret' },
        stdio: ['pipe', 'pipe', 'inherit'],
      },
    )
    assert.deepEqual(await describe(stock), wanted)
  })

  test('a base without local_infile on the target goes in by INSERT', async () => {
    await using server = await start()
    await makeEverything(server)
    const signal = AbortSignal.timeout(600_000)
    await using engine = await mysql.open(server.url, { signal, log: silentLog })
    using base = await takeBase(engine)
    await using target = await start({ settings: { 'local-infile': 'OFF' } })
    const limited = await limitedUser(target)
    await mysql.restore(requestOf(base, undefined, limited))
    assert.deepEqual(await checksums(target), await checksums(server))
  })

  test('a target that holds the databases is refused unless forced', async () => {
    await using server = await start()
    await server.query(
      'create database d; create table d.t (a int primary key); insert into d.t values (1)',
    )
    const signal = AbortSignal.timeout(600_000)
    await using engine = await mysql.open(server.url, { signal, log: silentLog })
    using base = await takeBase(engine)
    await server.query('insert into d.t values (2)')
    const refused = await mysql
      .restore(requestOf(base, undefined, server.url))
      .catch((e: unknown) => e)
    assert.ok(isFault(refused, 'refused'), String(refused))
    assert.deepEqual(await server.query('select count(*) as n from d.t'), [{ n: 2 }])
    await mysql.restore(requestOf(base, undefined, server.url, { force: true }))
    assert.deepEqual(await server.query('select count(*) as n from d.t'), [{ n: 1 }])
  })

  test('a view that works no more stops neither a base nor a restore, and is told of', async () => {
    await using server = await start()
    await server.query('create database d; create table d.t (a int); create table d.gone (a int)')
    await server.query(
      'create view d.broken as select a from d.gone; create view d.good as select a from d.t; drop table d.gone',
    )
    const signal = AbortSignal.timeout(600_000)
    await using engine = await mysql.open(server.url, { signal, log: silentLog })
    using base = await takeBase(engine)
    await using target = await start()
    const result = await mysql.restore(requestOf(base, undefined, target.url))
    assert.match(result.next.join(), /refused the view `d`.`broken`/)
    const views = await target.query(
      `select table_name as n from information_schema.views where table_schema = 'd'`,
    )
    assert.deepEqual(views, [{ n: 'good' }])
  })

  test('what is missing for a protection is found and mended by the statements given', async () => {
    await using server = await start({
      settings: { 'binlog-format': 'STATEMENT', 'sync-binlog': '0' },
    })
    const name =
      server.scheme === 'mariadb' ? `'r'@'%' identified by 'pw'` : `'r'@'%' identified by 'pw'`
    await server.query(`create user ${name}`)
    const signal = AbortSignal.timeout(600_000)
    const url = server.urlOf('', 'r', 'pw')
    const ask = async () => {
      await using engine = await mysql.open(url, { signal, log: silentLog })
      return await engine.probe('protect', { signal })
    }
    const before = await ask()
    const blocks = before.filter((finding) => finding.severity === 'blocks')
    assert.ok(blocks.some((finding) => finding.code === 'binlog-format-statement'))
    assert.ok(blocks.some((finding) => finding.code === 'no-replication-slave-right'))
    for (const { mend } of before) if (mend && !/=\s*\w+\s+#/.test(mend)) await server.query(mend)
    const after = await ask()
    assert.deepEqual(
      after.filter((finding) => finding.severity === 'blocks'),
      [],
    )
    await using engine = await mysql.open(url, { signal, log: silentLog })
    using base = await takeBase(engine)
    assert.equal(base.facts.form, 'logical')
    await using capture = await Capture.start(url)
    assert.equal(capture.failure, undefined)
  })
}

/** The client of the server's own packages; that of MySQL 5.6 holds none. */
async function stockClient(server: FamilyServer): Promise<string> {
  if (server.version === '5.6') return `${(await service('mariadb10')).bin}/mariadb`
  return `${server.bin}/${server.scheme === 'mysql' ? 'mysql' : 'mariadb'}`
}

/** An administrator who may not change global settings. */
async function limitedUser(server: FamilyServer): Promise<string> {
  const all =
    'select, insert, update, delete, create, drop, references, index, alter, create temporary tables, lock tables, execute, create view, show view, create routine, alter routine, event, trigger, process'
  await server.query(`create user 'limited'@'%' identified by 'pw'`)
  await server.query(`grant ${all} on *.* to 'limited'@'%'`)
  const more =
    server.scheme === 'mariadb'
      ? ['set user']
      : server.version === '5.6'
        ? ['super']
        : [
            'set_any_definer',
            'allow_nonexistent_definer',
            'system_user',
            'xa_recover_admin',
            'session_variables_admin',
          ]
  await server.query(`grant ${more.join(', ')} on *.* to 'limited'@'%'`)
  await server.query('set global log_bin_trust_function_creators = 1')
  return server.urlOf('', 'limited', 'pw')
}

/** Rows by checksum, and every object's own statement. */
async function describe(server: FamilyServer): Promise<unknown> {
  const sums = await checksums(server)
  const statements: Record<string, unknown> = {}
  for (const [kind, sql] of listings) {
    for (const { s, n } of await server.query<{ s: string; n: string }>(sql)) {
      const name = `\`${s.replaceAll('`', '``')}\`.\`${n.replaceAll('`', '``')}\``
      const [row] = await server.query<Record<string, unknown>>(`show create ${kind} ${name}`)
      const { Created: _, ...facts } = row ?? {}
      statements[`${kind} ${s}.${n}`] = JSON.parse(
        JSON.stringify(facts).replaceAll(/ AUTO_INCREMENT=\d+/g, ''),
      )
    }
  }
  if (server.scheme === 'mariadb') {
    statements['next of counter'] = await server.query(
      'select next_not_cached_value from types.counter',
    )
    statements['history'] = await server.query(
      'select a, b, row_start, row_end from types.history for system_time all order by a, row_end',
    )
  }
  return { sums, statements }
}

const own = (column: string) =>
  `${column} not in ('mysql', 'sys', 'performance_schema', 'information_schema')`
const listings: readonly (readonly [string, string])[] = [
  [
    'table',
    `select table_schema as s, table_name as n from information_schema.tables where ${own('table_schema')} and table_type <> 'VIEW' order by 1, 2`,
  ],
  [
    'view',
    `select table_schema as s, table_name as n from information_schema.views where ${own('table_schema')} order by 1, 2`,
  ],
  [
    'procedure',
    `select routine_schema as s, routine_name as n from information_schema.routines where ${own('routine_schema')} and routine_type = 'PROCEDURE' order by 1, 2`,
  ],
  [
    'function',
    `select routine_schema as s, routine_name as n from information_schema.routines where ${own('routine_schema')} and routine_type = 'FUNCTION' order by 1, 2`,
  ],
  [
    'trigger',
    `select trigger_schema as s, trigger_name as n from information_schema.triggers where ${own('trigger_schema')} order by 1, 2`,
  ],
  [
    'event',
    `select event_schema as s, event_name as n from information_schema.events where ${own('event_schema')} order by 1, 2`,
  ],
]
