import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { silentLog } from '#base/log'
import type { Target } from '#change'
import type { BaseFacts } from '#engines'
import { hasNewer, makeEverything } from '../../../test/support/mysql-every-type.ts'
import {
  Capture,
  forLargeRows,
  checksums,
  requestOf,
  type StartServer,
  takeBase,
} from '../../../test/support/mysql-family-harness.ts'
import { Scratch, untilServerEnded } from '../../../test/support/scratch.ts'
import type { FamilyServer } from '../../../test/support/servers/mysql-family.ts'
import { giveToServerUser } from '../../../test/support/servers/process.ts'
import { mysql } from './mysql.ts'
import { Session } from './protocol/session.ts'
import { temporaryFolder } from './scratch.ts'
import { parseEndpoint } from './protocol/endpoint.ts'

/** Replay of the archived log of a server of either family. */
export function restoreTests(start: StartServer): void {
  test('a base taken under writes and the log behind it give every table as it is, schema changes included', async () => {
    await using server = await start({ settings: { 'max-binlog-size': '65536' } })
    await using capture = await Capture.start(server.url)
    await server.query(
      'create database d; create table d.t (id int auto_increment primary key, v varchar(500), n int, key (v(20)))',
    )
    await server.query('create table d.m (a int auto_increment primary key, b int) engine=myisam')
    await using writer = await Writer.start(server)
    await writer.did(60)
    using base = await takeBase(capture.engine)
    await writer.did(60)
    // The log names tables, columns and statements of every kind after the base as well.
    await makeEverything(server)
    // MySQL 5.6 with GTIDs knows no table that is made of a select.
    await server.query(
      server.version === '5.6'
        ? 'create table d.copy (id int, v varchar(500)); insert into d.copy select id, v from d.t'
        : 'create table d.copy as select id, v from d.t',
    )
    await server.query('alter table d.copy add column z int default 7, add index (v(5))')
    await server.query(
      'rename table d.copy to d.moved; truncate table d.m; drop table if exists d.none',
    )
    await server.query(
      `update types.numbers set i = 5 where id > 1; update types.texts set v = concat('x', v); delete from types.times where id = 2`,
    )
    await server.query(
      'update types.child set pid = 2 where id = 10; delete from types.parent where id = 1',
    )
    await writer.did(20)
    await writer.stop()
    await capture.caughtUp(server)
    await using target = await start()
    const result = await mysql.restore(requestOf(base, capture.archive, target.url))
    assert.deepEqual(await checksums(target), await checksums(server))
    assert.equal(result.last?.at, capture.archive.commits.at(-1)?.at)
  })

  test('a restore to a time, a GTID or a position holds exactly the commits up to it', async () => {
    await using server = await start()
    await using capture = await Capture.start(server.url)
    await server.query(
      'create database d; create table d.t (id int primary key, at datetime(6)) engine=innodb',
    )
    using base = await takeBase(capture.engine, 1)
    await using client = await server.connect('d')
    await client.query(`set time_zone = '+00:00'`)
    for (let id = 1; id <= 40; id++) {
      await client.query('insert into t values (?, sysdate(6))', [id])
      if (id % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 1100))
    }
    await capture.caughtUp(server)
    const commits = capture.archive.commits.slice(-40)
    await using idle = await start()
    for (const index of [0, 7, 19, 20, 39]) {
      const commit = commits[index]
      const wanted = Array.from({ length: index + 1 }, (_, n) => n + 1)
      assert.ok(commit)
      const targets: Target[] = [
        { kind: 'commit', id: commit.id },
        { kind: 'position', at: commit.at },
      ]
      for (const target of targets) {
        assert.deepEqual(await idsAt(idle, base, capture, target), wanted)
      }
    }
    // Just before the next stamp: all with this stamp, none of the next.
    for (const index of [9, 19, 29]) {
      const next = commits[index + 1]
      const commit = commits[index]
      assert.ok(next && commit && next.timeUs > commit.timeUs)
      const target: Target = { kind: 'time', timeUs: next.timeUs - 1n }
      const wanted = Array.from({ length: index + 1 }, (_, n) => n + 1)
      assert.deepEqual(await idsAt(idle, base, capture, target), wanted)
    }
  })

  test('an unknown GTID and a named point are refused before the target is touched', async () => {
    await using server = await start()
    await using capture = await Capture.start(server.url)
    await server.query('create database d; create table d.t (id int primary key)')
    using base = await takeBase(capture.engine, 1)
    await server.query('insert into d.t values (1)')
    await capture.caughtUp(server)
    await using target = await start()
    const id = server.scheme === 'mariadb' ? '0-1-999999' : '11111111-1111-1111-1111-111111111111:5'
    const missing = await mysql
      .restore(requestOf(base, capture.archive, target.url, { target: { kind: 'commit', id } }))
      .catch((error: unknown) => error)
    assert.ok(isFault(missing, 'refused'), String(missing))
    assert.deepEqual(await checksums(target), {})
  })

  test('XA transactions, statements with session settings, and big transactions are replayed', async () => {
    await using server = await start({ settings: { ...forLargeRows } })
    await using capture = await Capture.start(server.url)
    await server.query(
      'create database d; create table d.t (id int primary key, v longtext) engine=innodb',
    )
    using base = await takeBase(capture.engine, 1)
    // Before 5.7 a prepared XA transaction is in no log.
    const hasXa = server.version !== '5.6'
    if (hasXa) await xaStory(server)
    await server.query(`insert into d.t values (100, repeat('x', 20000000))`)
    await server.query('create table d.seq (n int primary key)')
    await server.query(
      `insert into d.seq select a.n + 10 * b.n + 100 * c.n + 1000 * e.n from ${digits('a')}, ${digits('b')}, ${digits('c')}, ${digits('e')}`,
    )
    await server.query('create table d.wide (n int primary key, f varchar(1000))')
    await server.query(`insert into d.wide select n, repeat('w', 900) from d.seq`)
    if (server.scheme === 'mariadb' || server.version === '5.6') await statements(server)
    await capture.caughtUp(server)
    await using target = await start({ settings: forLargeRows })
    const result = await mysql.restore(requestOf(base, capture.archive, target.url))
    assert.deepEqual(await checksums(target), await checksums(server))
    if (!hasXa) return
    assert.match(result.next.join(), /1 prepared XA/)
    const [row] = await target.query<{ data: unknown }>('xa recover')
    assert.equal(String(row?.data), 'left')
  })
}

/** Where no scratch server can be made of the server's package: what is restored without one, and what is refused. */
export function restoreWithoutScratchTests(start: StartServer): void {
  test('one table comes back alone (no scratch server can be made of this package)', async () => {
    await using server = await start()
    await using capture = await Capture.start(server.url)
    await server.query(
      'create database d; create table d.t (id int primary key, v int) engine=innodb; create table d.u (id int primary key)',
    )
    await server.query('insert into d.t values (1, 1), (2, 2); insert into d.u values (7)')
    using base = await takeBase(capture.engine, 1)
    await server.query(
      'update d.t set v = 9 where id = 1; alter table d.t add column w int default 3',
    )
    await server.query('insert into d.u values (8); insert into d.t values (3, 3, 3)')
    await capture.caughtUp(server)
    const wanted = await checksums(server)
    await using target = await start()
    const one = { only: ['d.t'] }
    await mysql.restore(requestOf(base, capture.archive, target.url, one))
    assert.deepEqual(await checksums(target), { 'd.t': wanted['d.t'] })
  })
}

/** What is restored by way of a server of our own. */
export function scratchTests(start: StartServer): void {
  test('one table comes back alone, through a scratch server where a foreign key could have changed it', async () => {
    await using server = await start()
    await using capture = await Capture.start(server.url)
    await server.query(
      'create database d; create table d.p (id int primary key) engine=innodb; create table d.t (id int primary key, v int) engine=innodb',
    )
    await server.query(
      'create table d.c (id int primary key, pid int, foreign key (pid) references d.p (id) on delete cascade) engine=innodb',
    )
    await server.query(
      'insert into d.p values (1), (2); insert into d.c values (10, 1), (20, 2); insert into d.t values (1, 1), (2, 2)',
    )
    using base = await takeBase(capture.engine, 1)
    await server.query(
      'update d.t set v = 9 where id = 1; delete from d.p where id = 1; alter table d.t add column w int default 3',
    )
    await server.query('create table d.other (a int); insert into d.t values (3, 3, 3)')
    await capture.caughtUp(server)
    const wanted = await checksums(server)
    await using target = await start()
    await target.query(
      'create database d; create table d.mine (a int); insert into d.mine values (1)',
    )
    const mine = await checksums(target)
    const one = (only: string) =>
      requestOf(base, capture.archive, target.url, { only: [only], serverBin: server.bin })
    await mysql.restore(one('d.t'))
    assert.deepEqual(await checksums(target), { ...mine, 'd.t': wanted['d.t'] })
    await mysql.restore(one('d.c'))
    assert.deepEqual(await checksums(target), {
      ...mine,
      'd.c': wanted['d.c'],
      'd.t': wanted['d.t'],
    })
    const again = await mysql.restore(one('d.t')).catch((error: unknown) => error)
    assert.ok(isFault(again, 'refused'), String(again))
  })

  test('tables that come back into the live server are in its log: the next restore has them, too', async () => {
    await using server = await start()
    await using capture = await Capture.start(server.url)
    await server.query(
      'create database d; create table d.p (id int primary key) engine=innodb; create table d.t (id int primary key, v int) engine=innodb',
    )
    await server.query(
      'create table d.c (id int primary key, pid int, foreign key (pid) references d.p (id) on delete cascade) engine=innodb',
    )
    await server.query('insert into d.p values (1), (2); insert into d.c values (10, 1), (20, 2)')
    using base = await takeBase(capture.engine, 1)
    await server.query('insert into d.t values (1, 1), (2, 2), (3, 3)')
    await capture.caughtUp(server)
    const wanted = await checksums(server)
    const moment = capture.archive.commits.at(-1)
    assert.ok(moment)
    await server.query('delete from d.t; delete from d.c where id = 10; update d.c set id = 21')
    for (const only of ['d.t', 'd.c']) {
      const target: Target = { kind: 'commit', id: moment.id }
      const more = { only: [only], force: true, target, serverBin: server.bin }
      await capture.caughtUp(server)
      await mysql.restore(requestOf(base, capture.archive, server.url, more))
    }
    assert.deepEqual(await checksums(server), wanted)
    await capture.caughtUp(server)
    await using other = await start()
    await mysql.restore(requestOf(base, capture.archive, other.url))
    assert.deepEqual(await checksums(other), wanted)
  })

  test('a restore into a directory makes a server of it, and a proof checks one and leaves nothing behind', async () => {
    await using server = await start()
    await using capture = await Capture.start(server.url)
    await makeEverything(server)
    await server.query('create database redoubt')
    using base = await takeBase(capture.engine)
    assert.equal(await capture.engine.beat({ signal: AbortSignal.timeout(600_000) }), true)
    await server.query('insert into types.no_key values (9, "later")')
    await capture.caughtUp(server)
    using scratch = new Scratch('restored')
    giveToServerUser(scratch.path)
    const more = { serverBin: server.bin }
    const to = scratch.join('data')
    const proof = requestOf(base, capture.archive, '', more)
    const proved = await mysql.prove(proof, scratch.join('proof'))
    assert.deepEqual(
      proved.checks.filter((check) => !check.ok),
      [],
    )
    assert.ok(proved.checks.some((check) => check.name === 'heartbeat'))
    assert.ok(proved.checks.some((check) => check.name === 'CHECK TABLE'))
    const tables = Number(base.facts.details['tables'])
    const compared = proved.checks.find((check) => check.name === 'rows compared')
    const said = `${tables} tables with ${base.facts.details['rows']} rows are as they were`
    assert.ok(compared?.said.startsWith(said), `${compared?.said}, and not: ${said}`)
    const result = await mysql.restore(
      requestOf(base, capture.archive, to, { ...more, start: true }),
    )
    assert.ok(result.url)
    const url = new URL(result.url)
    url.password = 'dolphin-secret'
    const signal = AbortSignal.timeout(600_000)
    await using session = await Session.open(parseEndpoint(url.href), { signal })
    const temporary = await session.one('select @@global.tmpdir', { signal })
    assert.equal(temporary?.[0], temporaryFolder(to))
    const rows = await session.texts('select count(*) from types.no_key', { signal })
    assert.deepEqual(rows, [['4']])
    await session.query('shutdown', { signal })
    await untilServerEnded(join(to, 'redoubt.pid'))
    const twice = await mysql
      .restore(requestOf(base, capture.archive, to, more))
      .catch((error: unknown) => error)
    assert.ok(isFault(twice, 'refused'), String(twice))
  })

  test('a proof names the table whose rows came back other than they were read, and stops at nothing for it', async () => {
    await using server = await start()
    await using capture = await Capture.start(server.url)
    await server.query(
      'create database d; create table d.t (id int primary key, v varchar(20), key (v)) engine=innodb; create table d.u (id int)',
    )
    await server.query(`insert into d.t values (1, 'one'), (2, 'two'); insert into d.u values (1)`)
    const json = hasNewer(server) && server.scheme === 'mysql'
    if (json) {
      await server.query(
        `create table d.j (j json, n int); insert into d.j values (json_object('a', 1.10), 1)`,
      )
    }
    using base = await takeBase(capture.engine, 1)
    const prove = async (folder: string) => {
      using scratch = new Scratch(folder)
      giveToServerUser(scratch.path)
      const request = requestOf(base, capture.archive, '', { serverBin: server.bin })
      const { checks } = await mysql.prove(request, scratch.join('proof'))
      return checks
    }
    const file = join(base.files.path, 'data/d/t/00000.tsv')
    writeFileSync(file, '2\ttwo\n1\tone\n')
    const turned = await prove('proved-turned')
    assert.deepEqual(
      turned.filter((check) => !check.ok),
      [],
    )
    writeFileSync(file, '1\tonE\n2\ttwo\n')
    const bad = (await prove('proved-damaged')).filter((check) => !check.ok)
    assert.deepEqual(
      bad.map(({ name }) => name),
      ['rows compared'],
    )
    assert.match(
      bad[0]?.said ?? '',
      /^1 of \d tables differ from the base: `d`\.`t`: 2 rows of digest [0-9a-f]{16}, the base has 2 of [0-9a-f]{16}$/,
    )
    // The log speaks of a row that is not there: the proof tells both.
    await server.query('update d.t set v = null where id = 1')
    await capture.caughtUp(server)
    writeFileSync(file, '3\tone\n2\ttwo\n')
    const worse = (await prove('proved-worse')).filter((check) => !check.ok)
    assert.deepEqual(
      worse.map(({ name }) => name),
      ['rows compared', 'log replayed'],
    )
  })

  test('a proof that found no table to check says so, and holds only where the base has none', async () => {
    await using server = await start()
    const signal = AbortSignal.timeout(600_000)
    await using engine = await mysql.open(server.url, { signal, log: silentLog })
    using base = await takeBase(engine, 1)
    using scratch = new Scratch('proved-empty')
    giveToServerUser(scratch.path)
    const look = async (facts: BaseFacts, folder: string) => {
      const request = requestOf({ ...base, facts }, undefined, '', { serverBin: server.bin })
      const { checks } = await mysql.prove(request, scratch.join(folder))
      const check = checks.find(({ name }) => name === 'CHECK TABLE')
      return { ok: check?.ok, said: check?.said }
    }
    const said = 'the base has no tables: nothing to check'
    assert.deepEqual(await look(base.facts, 'none'), { ok: true, said })
    const lost = { ...base.facts, details: { ...base.facts.details, tables: '2' } }
    const missing = 'nothing was checked: no table came back, and the base has 2'
    assert.deepEqual(await look(lost, 'lost'), { ok: false, said: missing })
  })
}

/** Restores to a moment and tells which rows are there. */
async function idsAt(
  idle: FamilyServer,
  base: Parameters<typeof requestOf>[0],
  capture: Capture,
  target: Target,
): Promise<number[]> {
  await mysql.restore(requestOf(base, capture.archive, idle.url, { target, force: true }))
  const rows = await idle.query<{ id: number }>('select id from d.t order by id')
  return rows.map((row) => row.id)
}

async function xaStory(server: FamilyServer): Promise<void> {
  await using one = await server.connect('d')
  await one.query(
    `xa start 'done', 'b', 7; insert into t values (1, 'xa'); xa end 'done', 'b', 7; xa prepare 'done', 'b', 7`,
  )
  await one.end()
  await server.query(`insert into d.t values (2, 'between')`)
  await server.query(`xa commit 'done', 'b', 7`)
  await using two = await server.connect('d')
  await two.query(
    `xa start 'undone'; insert into t values (3, 'xa'); xa end 'undone'; xa prepare 'undone'`,
  )
  await two.end()
  await server.query(`xa rollback 'undone'`)
  await using three = await server.connect('d')
  await three.query(
    `xa start 'left'; insert into t values (4, 'xa'); xa end 'left'; xa prepare 'left'`,
  )
  await three.end()
}

/** What only the statement format brings: variables, seeds, counters, files. */
async function statements(server: FamilyServer): Promise<void> {
  await using client = await server.connect('d')
  await client.query(`set session binlog_format = 'STATEMENT'`)
  await client.query(
    'create table s (id int auto_increment primary key, r double, t varchar(100) character set utf8mb4, at timestamp null, u decimal(20,5))',
  )
  await client.query(`set @a = 'ü''x', @b = 12345.678, @c = -7, @d = 1.5e10, @e = null`)
  await client.query(
    'insert into s (r, t, at, u) values (rand(), @a, now(), @b), (rand(), @c, now(), @d), (@d, @e, null, @c)',
  )
  await client.query(
    `set session sql_mode = 'ANSI_QUOTES', time_zone = '+05:00', insert_id = 50; insert into "s" (t, at) values ('tz', '2020-01-01 00:00:00')`,
  )
  await client.query(
    'create temporary table tmp (a int); insert into tmp values (1), (2); insert into s (u) select a from tmp; drop temporary table tmp',
  )
  await client.query('update s set r = last_insert_id() where id = last_insert_id()')
  const file = join(server.makeFolder('files'), 'rows')
  writeFileSync(file, `60\tloaded ü\n1\tagain\n61\t${'x'.repeat(90)}\n`, { mode: 0o644 })
  for (const how of ['', 'ignore', 'replace']) {
    await client.query('delete from s where id in (60, 61)')
    const rows = how === '' ? 'ignore 2 lines' : ''
    await client.query(
      `load data infile '${file}' ${how} into table s character set utf8mb4 ${rows} (id, @t) set t = concat(@t, '${how}')`,
    )
  }
  await client.query('create table `ü` (a int); set names latin1')
}

function digits(name: string): string {
  const rows = Array.from({ length: 10 }, (_, n) => `select ${n} as n`).join(' union all ')
  return `(${rows}) ${name}`
}

/** Changes rows of `d.t` and `d.m` for as long as it lives. */
class Writer implements AsyncDisposable {
  #count = 0
  #stopping = false
  #running: Promise<void> = Promise.resolve()

  static async start(server: FamilyServer): Promise<Writer> {
    const writer = new Writer()
    writer.#running = writer.#run(server)
    return writer
  }

  async #run(server: FamilyServer): Promise<void> {
    await using client = await server.connect('d')
    while (!this.#stopping) {
      const n = this.#count
      await client.query('insert into t (v, n) values (?, ?)', [`row ${n} ü`, n])
      if (n % 3 === 0) await client.query('update t set n = n + 1 where id % 7 = ?', [n % 7])
      if (n % 5 === 0) await client.query('delete from t where id % 11 = ?', [n % 11])
      if (n % 4 === 0) await client.query('insert into m (b) values (?)', [n])
      this.#count += 1
    }
  }

  /** Waits for so many more rounds. */
  async did(rounds: number): Promise<void> {
    const goal = this.#count + rounds
    while (this.#count < goal) await new Promise((resolve) => setTimeout(resolve, 5))
  }

  async stop(): Promise<void> {
    this.#stopping = true
    await this.#running
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}
