import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { silentLog } from '#base/log'
import type { ObjectName } from '#change/schema'
import { carry, everything, limit, openEngine } from '../../../test/support/mysql-carry.ts'
import { makeEverything } from '../../../test/support/mysql-every-type.ts'
import { checksums, type StartServer } from '../../../test/support/mysql-family-harness.ts'
import type { FamilyServer } from '../../../test/support/servers/mysql-family.ts'

/** Schema and rows of a live server in another. */
export function copyLiveTests(start: StartServer): void {
  test('all objects and rows of a server come into another as they are', async () => {
    await using server = await start()
    await using target = await start()
    await makeEverything(server)
    const before = await settingsOf(target)
    await carry(server.url, target.url)
    assert.deepEqual(await checksums(target), await checksums(server))
    if (server.version !== '5.6') {
      assert.equal(await dump(target), await dump(server))
      const text = await dump(server)
      for (const what of ['TRIGGER', 'EVENT', 'PROCEDURE', 'VIEW', 'FULLTEXT', 'FOREIGN KEY']) {
        assert.match(text, new RegExp(what, 'i'))
      }
    }
    assert.deepEqual(await settingsOf(target), before)
    assert.deepEqual(await target.query(`show databases like 'redoubt'`), [])
  })

  test('a mover that is killed goes on with the chunks that are not there, and the settings go back', async () => {
    await using server = await start()
    await using target = await start()
    await fill(server)
    const before = await settingsOf(target)
    const child = spawn(
      process.execPath,
      [join(support, 'mysql-carry-child.ts'), server.url, target.url, '20000', '22'],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    let seen = 0
    for await (const line of createInterface({ input: child.stdout })) {
      if (line === 'chunk') seen += 1
      if (seen === 20) child.kill('SIGKILL')
    }
    assert.notDeepEqual(await settingsOf(target), before)
    const marked = await target.query<{ n: number }>(
      'select count(*) as n from redoubt.copied_chunk',
    )
    assert.ok(Number(marked[0]?.n) >= 20)
    let rest = 0
    await carry(server.url, target.url, {
      chunkBytes: 20_000,
      run: 2,
      onChunk: () => void (rest += 1),
    })
    assert.ok(rest > 0)
    assert.deepEqual(await checksums(target), await checksums(server))
    assert.deepEqual(await settingsOf(target), before)
    assert.deepEqual(await target.query(`show databases like 'redoubt'`), [])
  })

  test('a target that takes no local files and lets nothing be set gets the same rows by INSERT', async () => {
    await using server = await start()
    await using target = await start({ settings: { 'local-infile': 'OFF' } })
    await makeEverything(server)
    await target.query(
      `create user plain identified by 'pass'; grant all on types.* to plain; grant all on redoubt.* to plain`,
    )
    const isOurs = (name: ObjectName) =>
      name[0] === 'types' && !/^(?:a_view|b_view|t_one|t_two|twice|proc|ev)$/.test(name[1] ?? '')
    const accepts = (name: ObjectName) => isOurs(name) && name[1] !== 'numbers'
    await carry(server.url, target.urlOf('', 'plain', 'pass'), { selection: { accepts } })
    const [theirs, ours] = [await checksums(server), await checksums(target)]
    assert.ok(Object.keys(ours).length > 10)
    for (const [name, sum] of Object.entries(ours)) assert.equal(sum, theirs[name], name)
    await using there = await openEngine(target.urlOf('', 'plain', 'pass'))
    await using source = await openEngine(server.url)
    const signal = limit()
    const schema = await source.schema.readSchema(everything, { signal })
    const found = await there.schema.checkSchema(schema, { phases: ['schema'], signal })
    const blocks = new Set(
      found.filter(({ severity }) => severity === 'blocks').map(({ code }) => code),
    )
    assert.ok(blocks.has('no-privilege') && blocks.has('no-definer-right'), [...blocks].join())
  })

  test('accounts come with their passwords and grants when asked for', async () => {
    await using server = await start()
    await using target = await start()
    await fill(server)
    await server.query(
      `create user app@'10.%' identified by 'pa''ss; word'; grant select, insert on d.* to app@'10.%'`,
    )
    const schema = await carry(server.url, target.url, { selection: { accounts: true } })
    assert.ok(schema.objects.some(({ kind }) => kind === 'grant'))
    const grants = `show grants for app@'10.%'`
    assert.deepEqual(await target.query(grants), await server.query(grants))
  })

  test('chunks hold about as many rows as wanted, whatever holes a key has', async () => {
    await using server = await start()
    await fill(server)
    await server.query(
      'insert into d.t values (9000000000000000000, "far"), (-9000000000000000000, "away")',
    )
    await server.query('analyze table d.t')
    await using source = await openEngine(server.url)
    const signal = limit()
    const { tables } = await source.schema.readSchema(everything, { signal })
    const options = { tables, parallel: 1, follow: undefined, log: silentLog, signal }
    await using reader = await source.rows.beginCopy(options)
    const index = tables.findIndex((table) => table.name[1] === 't')
    const table = tables[index]
    assert.ok(table)
    const chunks = await reader.plan(table, { index, chunkBytes: 20_000, signal })
    const sizes: number[] = []
    for (const chunk of chunks) {
      let rows = 0
      const read = reader.read(table, chunk, { encoding: 'mysql/text-row', signal })
      for await (const block of read) rows += block.rows
      sizes.push(rows)
    }
    assert.equal(
      sizes.reduce((sum, rows) => sum + rows),
      4002,
    )
    assert.ok(Math.max(...sizes) < 800, sizes.join(' '))
    // Who leaves a chunk in the middle leaves the session to the next.
    const [first] = chunks
    assert.ok(first)
    for (let tries = 0; tries < 3; tries++) {
      for await (const _ of reader.read(table, first, { encoding: 'mysql/text-row', signal })) break
    }
  })

  test('rows of a target, a read-only target and a table of another form are found before anything is written', async () => {
    await using server = await start()
    await using target = await start()
    await fill(server)
    await target.query(
      'create database d; create table d.t (id bigint primary key, v varchar(500)) engine=innodb',
    )
    await target.query(
      'insert into d.t values (1, "x"); create table d.plain (other int) engine=innodb',
    )
    await target.query('set global read_only = on')
    await using source = await openEngine(server.url)
    await using there = await openEngine(target.url)
    const signal = limit()
    const schema = await source.schema.readSchema(everything, { signal })
    const found = await there.schema.checkSchema(schema, { phases: ['schema', 'copy'], signal })
    const blocks = found.filter(({ severity }) => severity === 'blocks').map(({ code }) => code)
    assert.deepEqual(blocks.sort(), ['table-differs', 'target-has-rows', 'target-read-only'])
    assert.deepEqual(await target.query(`show databases like 'redoubt'`), [])
  })

  test('databases and tables get other names in whatever statement they stand', async () => {
    await using server = await start()
    await using target = await start()
    await fill(server)
    await server.query(
      `create table d.child (id int primary key, t bigint, foreign key (t) references t (id)) engine=innodb;
      create view d.v as select t.id, c.id as child from d.t join d.child c on c.t = t.id;
      create trigger d.tr before insert on d.child for each row set new.t = new.t;
      create procedure d.p() select count(*) from d.plain;
      create procedure d.doubt() select count(*) from child`,
      [],
      'd',
    )
    await using source = await openEngine(server.url)
    const map = (name: ObjectName): ObjectName => {
      const [database, ...rest] = name
      return [
        database === 'd' ? 'new d' : (database ?? ''),
        ...rest.map((one) => (one === 'child' ? 'kid' : one)),
      ]
    }
    const selection = { ...everything, map, accepts: (name: ObjectName) => name[1] !== 'doubt' }
    await carry(server.url, target.url, { selection })
    await target.query('insert into kid values (1, 1)', [], 'new d')
    const rows = await target.query('select * from v', [], 'new d')
    assert.deepEqual(rows, [{ id: 1, child: 1 }])
    const shown = await target.query<Record<string, string>>('show create procedure `new d`.p')
    assert.match(Object.values(shown[0] ?? {}).join(' '), /from `new d`\.`plain`/)
    const all = await source.schema.readSchema({ ...everything, map }, { signal: limit() })
    assert.deepEqual(all.findings.filter(({ code }) => code === 'body-names').length, 1)
  })
}

const support = fileURLToPath(new URL('../../../test/support', import.meta.url))

/** A table of 4,000 rows, and one without a key. */
async function fill(server: FamilyServer): Promise<void> {
  const ten = Array.from({ length: 10 }, (_, n) => `select ${n} as n`).join(' union all ')
  await server.query(
    `create database d; create table d.t (id bigint primary key, v varchar(500), key (v(20))) engine=innodb;
     create table d.plain (a int, b text) engine=innodb; insert into d.plain values (1, 'x'), (1, 'x'), (null, null);
     create table d.solid (a int) engine=myisam; insert into d.solid values (1), (2)`,
  )
  await server.query(
    `insert into d.t select a.n + 10 * b.n + 100 * c.n + 1000 * e.n, repeat('x', 100) from (${ten}) a, (${ten}) b, (${ten}) c, (${ten}) e where e.n < 4`,
  )
  await server.query('analyze table d.t')
}

/** Without what is made disabled: see the findings. */
export async function dump(server: FamilyServer, ...databases: readonly string[]): Promise<string> {
  const tool = server.scheme === 'mariadb' ? 'mariadb-dump' : 'mysqldump'
  const own = `'mysql', 'sys', 'performance_schema', 'information_schema'`
  const all = await server.query<{ n: string }>(
    `select schema_name as n from information_schema.schemata where schema_name not in (${own}) order by 1`,
  )
  const names = databases.length > 0 ? databases : all.map(({ n }) => n)
  const text = server.tool(
    tool,
    ...server.clientArgs,
    '--no-data',
    '--routines',
    '--triggers',
    '--events',
    '--skip-dump-date',
    ...(server.scheme === 'mysql' ? ['--set-gtid-purged=OFF'] : []),
    '--databases',
    ...names,
  )
  return text
    .replaceAll(
      / ON COMPLETION (NOT )?PRESERVE (ENABLE|DISABLE) /g,
      ' ON COMPLETION $1PRESERVE ENABLE ',
    )
    .replaceAll(/^-- (Host|Server version|MariaDB dump).*\n/gm, '')
}

async function settingsOf(server: FamilyServer): Promise<unknown> {
  return server.query(
    `show global variables where variable_name in ('innodb_flush_log_at_trx_commit', 'sync_binlog', 'local_infile', 'max_allowed_packet', 'event_scheduler')`,
  )
}
