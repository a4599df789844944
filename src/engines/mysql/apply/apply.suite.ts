import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import type { Position } from '#change'
import type { Relation } from '#change/batch'
import { Dice } from '../../../../test/support/dice.ts'
import { Follow } from '../../../../test/support/mysql-apply.ts'
import { makeEverything } from '../../../../test/support/mysql-every-type.ts'
import {
  checksums,
  type StartServer,
  until,
} from '../../../../test/support/mysql-family-harness.ts'
import { positionOf, readAll } from '../../../../test/support/mysql-mirror.ts'
import type { FamilyServer } from '../../../../test/support/servers/mysql-family.ts'
import { MysqlApplyTable } from './apply-table.ts'
import { Cascades } from './foreign-keys.ts'

type Abilities = {
  /** The log can be told to hold the names of columns, so that tables may be altered. */
  readonly names: boolean
  /** Has JSON in a binary form, and parts of it in the log. */
  readonly patches: boolean
}

/** Changes of one live server, read from its log and applied to another. */
export function applyTests(start: StartServer, abilities: Abilities): void {
  test('values of every type come as they are, with the definitions of their tables', async () => {
    await using source = await start()
    await using target = await start()
    const after = await positionOf(source)
    await makeEverything(source)
    const accepts = (name: readonly string[]) =>
      name[0] !== 'redoubt' && !['old_kind', 'history'].includes(name[1] ?? '')
    const selection = { accepts, map: (name: readonly string[]) => name }
    await using follow = await Follow.open(source, target, after, { selection })
    await follow.catchUp()
    assert.ok((await compare(source, target, ['types.old_kind', 'types.history'])) > 10)
  })

  test('a random load makes the target equal, in whole and in pieces', async () => {
    await using source = await start()
    await using target = await start()
    const after = await positionOf(source)
    for (const options of [{}, { together: 40 }, { rowsMax: 30 }]) {
      await randomLoad(source)
      await using follow = await Follow.open(source, target, after, options)
      await follow.catchUp()
      assert.equal(await compare(source, target), 6)
      assert.ok(follow.written.rows > 300)
      assert.equal(follow.written.conflicts, 0)
    }
  })
  test('a target that is killed again and again has every change once', async () => {
    await using source = await start({ settings: { 'loose-binlog-row-metadata': 'FULL' } })
    await using target = await start()
    const after = await positionOf(source)
    await randomLoad(source, 60)
    const wide = [
      'alter table d.keyed add column more int default 5, add key (more)',
      'alter table d.bare add column more int',
      `insert into d.bare values (1, 'x', 0.5, 1, 7), (1, 'x', 0.5, 1, 7)`,
    ]
    for (const sql of [
      ...(abilities.names ? wide : []),
      'create table d.late (id int primary key)',
      'rename table d.late to d.later',
    ]) {
      await source.query(sql)
    }
    await source.query('insert into d.later values (1)')
    if (abilities.names) {
      await source.query(
        'alter table d.keyed drop column more; alter table d.bare drop column more',
      )
    }
    await randomLoad(source, 60)
    const dice = new Dice(11)
    let kills = 0
    for (let ended = false; !ended; ) {
      let left = kills < 4 ? 1 + dice.roll(10) : -1
      let dying: Promise<void> | undefined
      const onCommit = () => {
        left -= 1
        if (left === 0) dying = target.kill9()
      }
      await using follow = await Follow.open(source, target, after, { together: 3, onCommit })
      const running = follow.catchUp()
      const failed = await running.then(
        () => undefined,
        (error: unknown) => error,
      )
      if (dying === undefined && failed !== undefined) throw failed
      await dying
      ended = dying === undefined
      if (ended) break
      kills += 1
      await target.start()
    }
    assert.ok(kills >= 3, `${kills} kills`)
    assert.equal(await compare(source, target), 7)
  })

  test('many transactions on few rows become few statements', async () => {
    await using source = await start()
    await using target = await start()
    const after = await positionOf(source)
    await using client = await source.connect()
    await client.query(
      'create database d; create table d.hot (id int primary key, n int, v varchar(9))',
    )
    await client.query(`insert into d.hot values (1, 0, 'x'), (2, 0, null), (3, 0, 'y')`)
    for (let round = 0; round < 60; round++) {
      const id = 1 + (round % 3)
      await client.query(`update d.hot set n = n + 1, v = concat('v', n) where id = ${id}`)
      await client.query(`insert into d.hot values (${100 + round}, ${round}, 'new')`)
      if (round % 2 === 0) await client.query(`delete from d.hot where id = ${100 + round}`)
      if (round % 5 === 1) await client.query(`update d.hot set id = -id where id = ${100 + round}`)
    }
    await using follow = await Follow.open(source, target, after, { together: 1000 })
    const before = await statementsOf(target)
    await follow.catchUp()
    const spent = (await statementsOf(target)) - before
    assert.ok(spent < 10, `${spent} statements`)
    assert.equal(await compare(source, target), 1)
  })

  test('changes that are applied again converge, with unique keys that changed hands', async () => {
    await using source = await start()
    await using target = await start()
    const after = await positionOf(source)
    await randomLoad(source)
    await using once = await Follow.open(source, target, after)
    await once.catchUp()
    const accepts = (name: readonly string[]) => name[0] === 'd' && name[1] !== 'bare'
    const selection = { accepts, map: (name: readonly string[]) => name }
    for (const together of [1, 30]) {
      const options = { link: `again ${together}`, converge: true, selection, together }
      await using again = await Follow.open(source, target, after, options)
      const tables = await rowsOnly(again, source, after, accepts)
      assert.ok(tables > 3)
      assert.equal(await compare(source, target), 6)
    }
  })

  test('rows that are not as the source had them stop, are let be, or are overwritten', async () => {
    await using source = await start()
    await using target = await start()
    const table = `t (id int primary key, u varchar(20), v int, unique key (u)) character set utf8mb4`
    for (const server of [source, target]) {
      await server.query(`create database d; create table d.${table}`)
      await server.query(
        `insert into d.t values (1, 'a', 1), (2, 'b', 2), (3, 'c', 3), (4, 'd', 4)`,
      )
    }
    const cases = [
      ["insert into d.t values (10, 'new', 5)", `insert into d.t values (10, 'theirs', 0)`],
      ["insert into d.t values (11, 'E', 5)", `insert into d.t values (99, 'é', 0)`],
      ['update d.t set v = 20 where id = 2', 'delete from d.t where id = 2'],
      [`update d.t set u = 'free' where id = 3`, `insert into d.t values (98, 'free', 0)`],
      ['delete from d.t where id = 4', 'delete from d.t where id = 4'],
    ] as const
    for (const [change, theirs] of cases) {
      const after = await positionOf(source)
      const before = await source.query('select * from d.t order by id')
      await source.query(change)
      const now = await source.query('select * from d.t order by id')
      for (const conflicts of ['stop', 'ignore', 'overwrite'] as const) {
        await target.query('delete from d.t')
        for (const row of before) {
          await target.query('insert into d.t values (?)', [Object.values(row)])
        }
        await target.query(theirs)
        const there = await target.query('select * from d.t order by id')
        const link = `${conflicts} ${change}`
        await using follow = await Follow.open(source, target, after, { conflicts, link })
        const running = follow.catchUp()
        if (conflicts === 'stop') {
          const refused = await running.catch((error: unknown) => error)
          assert.ok(isFault(refused, 'conflict'), String(refused))
          assert.match(refused.message, /`d`\.`t` \(id = \d+\)/)
        } else await running
        const kept = await target.query('select * from d.t order by id')
        assert.deepEqual(kept, conflicts === 'overwrite' ? now : there, link)
        const noted = await target.query<Noted>(
          'select * from redoubt.apply_conflict where link = ?',
          [link],
        )
        assert.equal(noted.length, conflicts === 'stop' ? 0 : 1, link)
        assert.equal(follow.written.conflicts, noted.length)
        const images = [noted[0]?.source_before, noted[0]?.source_after].map(
          (text) => text && JSON.parse(text),
        )
        if (noted[0]) assert.ok(images.some((image) => image?.id !== undefined))
      }
    }
  })

  test('images with parts of rows change only these', async () => {
    await using source = await start()
    await using target = await start()
    const after = await positionOf(source)
    for (const image of ['minimal', 'noblob']) {
      await source.query(`set global binlog_row_image = ${image}`)
      await randomLoad(source)
    }
    await using follow = await Follow.open(source, target, after, { together: 10 })
    await follow.catchUp()
    assert.equal(await compare(source, target), 6)
  })

  if (abilities.patches)
    test('patches of JSON documents are applied', async () => {
      await using source = await start()
      await using target = await start()
      const after = await positionOf(source)
      await source.query(`set global binlog_row_value_options = 'PARTIAL_JSON'`)
      await source.query('create database d')
      await using client = await source.connect('d')
      await client.query('create table p (id int primary key, a json, n int)')
      await client.query(
        `insert into p values (1, '{"k": [1, 2, {"x": "a long enough text to be kept"}], "m": null}', 1), (2, '[]', 2)`,
      )
      await client.query(`update p set a = json_set(a, '$.k[2].x', 'ü'), n = n + 1 where id = 1`)
      await client.query(`update p set a = json_array_insert(a, '$.k[1]', 1.5) where id = 1`)
      await client.query(
        `update p set a = json_remove(json_set(a, '$.q', '"'), '$.m') where id = 1`,
      )
      await client.query(`update p set a = json_set(a, '$.k[0]', cast('null' as json))`)
      await using follow = await Follow.open(source, target, after)
      await follow.catchUp()
      assert.equal(await compare(source, target), 1)
    })

  test('a transaction whose session dies is there whole or not at all, and its mark with it', async () => {
    await using source = await start()
    await using target = await start()
    await source.query('create database d; create table d.bare (a int, b varchar(20))')
    await target.query('create database d; create table d.bare (a int, b varchar(20))')
    const after = await positionOf(source)
    await source.query(`insert into d.bare values (1, 'x'), (1, 'x'), (2, 'y')`)
    const signal = AbortSignal.timeout(600_000)
    for (const dies of ['write', 'mark', 'never']) {
      await using follow = await Follow.open(source, target, after)
      assert.equal((await follow.applier.applied({ signal }))?.low.at, undefined)
      const run = async () => {
        if (dies === 'mark') {
          // The mark waits for this lock, the rows being written already.
          await using client = await target.connect()
          await client.query('lock tables redoubt.applied_mark write')
          const running = follow.catchUp()
          const ended = running.catch((error: unknown) => error)
          await until(async () => (await waiting(target)) > 0, 'the mark to be written')
          await killOthers(target, client.threadId)
          return await ended
        }
        if (dies === 'write') await killOthers(target, -1)
        return follow.catchUp().catch((error: unknown) => error)
      }
      const ended = await run()
      assert.equal(isFault(ended, 'unreachable'), dies !== 'never', String(ended))
      const [row] = await target.query<{ n: number }>('select count(*) as n from d.bare')
      assert.equal(row?.n, dies === 'never' ? 3 : 0)
    }
    await using follow = await Follow.open(source, target, after)
    const mark = await follow.applier.applied({ signal })
    assert.ok(mark && mark.low.at > after.at)
    await follow.catchUp()
    assert.equal(await compare(source, target), 1)
  })

  test('definitions are run once, whenever the link is killed, and under the names of the target', async () => {
    await using source = await start()
    await using target = await start()
    const after = await positionOf(source)
    await using client = await source.connect()
    await client.query('create database shop; create database other; use shop')
    const statements = [
      'create table t (id int primary key, v varchar(20)) character set latin1',
      `insert into t values (1, 'one')`,
      'create table u like t',
      'alter table t add column (w int default 7), add unique key (w, id)',
      'create table shop.child (id int primary key, tid int, constraint f foreign key (tid) references t (id))',
      'create index i on t (v)',
      'rename table u to u2',
      'alter table u2 rename to u3',
      `alter table u3 comment 'rename it', engine = innodb`,
      'create table other.skipped (id int primary key)',
      'drop index i on t',
      'insert into u3 values (5, null)',
      'truncate u3',
      'create view seen as select id from t',
      'create trigger tr before insert on t for each row set new.w = 1',
      'drop trigger tr',
      'create table gone (id int primary key)',
      'drop table gone, other.skipped',
      `/* a note */ alter table shop.\`t\` drop key w, drop column w`,
    ]
    for (const sql of statements) await client.query(sql)
    const accepts = ([database]: readonly string[]) => database === 'shop'
    const map = ([database = '', ...rest]: readonly string[]) => [
      database === 'shop' ? 'Laden' : database,
      ...rest,
    ]
    const batches = await readAll(source, { after, accepts })
    const views = batches.map((batch) => ({
      ...batch,
      transactions: batch.transactions.filter(
        (one) => !one.changes.some((change) => 'sql' in change && / view /i.test(change.sql)),
      ),
    }))
    for (const { transactions, ...batch } of views) {
      for (const one of transactions) {
        const link = { selection: { accepts, map } }
        const again = { ...batch, transactions: [one] }
        const isStatement = one.changes.some(({ kind }) => kind === 'statement')
        await using follow = await Follow.open(source, target, after, link)
        await follow.take(again)
        if (!isStatement) continue
        // As if it had been killed behind the statement, before its mark.
        await target.query('update redoubt.statement_intent set ran = 0')
        await follow.take(again)
      }
    }
    const [shop, laden] = [await tablesOf(source, 'shop'), await tablesOf(target, 'Laden')]
    assert.deepEqual(
      laden.names,
      shop.names.filter((name) => name !== 'seen'),
    )
    assert.deepEqual(
      laden.creates,
      shop.creates.filter((sql) => !sql.includes('VIEW')),
    )
    const renamed = batches
      .flatMap((batch) => batch.transactions)
      .find((one) => one.changes.some((change) => 'sql' in change && / view /i.test(change.sql)))
    assert.ok(renamed)
    await using follow = await Follow.open(source, target, after, { selection: { accepts, map } })
    const refused = await follow
      .take({ kind: 'batch', transactions: [renamed], rows: 0, sizeBytes: 0 })
      .catch((error: unknown) => error)
    assert.ok(isFault(refused, 'unsupported'), String(refused))
    // As if it had been killed before the statement ran.
    const last = views.flatMap((batch) => batch.transactions).at(-1)
    assert.ok(last)
    await target.query('alter table Laden.t add column w int default 7, add unique key (w, id)')
    await using late = await Follow.open(source, target, after, {
      selection: { accepts, map },
      link: 'late',
    })
    await late.take({ kind: 'batch', transactions: [last], rows: 0, sizeBytes: 0 })
    await target.query('alter table Laden.t add column w int default 7, add unique key (w, id)')
    await target.query(`update redoubt.statement_intent set ran = 0 where link = 'late'`)
    await late.take({ kind: 'batch', transactions: [last], rows: 0, sizeBytes: 0 })
    assert.deepEqual((await tablesOf(target, 'Laden')).creates, laden.creates)
  })

  test('values that the target holds equal have a hash in common', async () => {
    await using target = await start()
    const collations = await target.query<{ c: string; s: string }>(
      `select COLLATION_NAME as c, CHARACTER_SET_NAME as s from information_schema.COLLATIONS
       where CHARACTER_SET_NAME in ('utf8mb4', 'latin1', 'utf8mb3', 'utf8', 'ascii') and COLLATION_NAME not like '%uca1400%'`,
    )
    const words = [
      '',
      ' ',
      'a',
      'A',
      'ä',
      'ae',
      'aa',
      'å',
      'z',
      'ss',
      'ß',
      's',
      'i',
      'I',
      'ı',
      'y',
      'j',
      'v',
      'w',
      'u',
      'ü',
      'e',
      'é',
      'a\u0001',
      '1',
      '²',
      '2',
      'x y',
      'X Y ',
      'æ',
      'ø',
      'o',
      'll',
      'ch',
      'đ',
      'd',
      '-',
      '_',
    ]
    await using client = await target.connect()
    let equals = 0
    for (const { c, s } of collations) {
      const list = words.map((word) => `select ${client.escape(word)} as w`).join(' union all ')
      const [rows] = await client.query(
        `select hex(convert(x.w using ${s})) as a, hex(convert(y.w using ${s})) as b from (${list}) x join (${list}) y
         on convert(x.w using ${s}) collate ${c} = convert(y.w using ${s}) collate ${c}`,
      )
      for (const { a, b } of rows as { a: string; b: string }[]) {
        const [one, two] = [a, b].map((hex) => hashesOf(Buffer.from(hex, 'hex'), s, c))
        assert.ok(
          one?.some((hash) => two?.includes(hash)),
          `${c}: ${a} = ${b}`,
        )
        if (a !== b) equals += 1
      }
    }
    assert.ok(equals > 500, `${equals} pairs`)
    const plain = ['one', 'two', 'three'].flatMap((word) =>
      hashesOf(Buffer.from(word), 'utf8mb4', 'utf8mb4_general_ci'),
    )
    assert.equal(new Set(plain).size, 3)
  })
}

type Noted = { readonly source_before: string | null; readonly source_after: string | null }

/** What a unique key on one text touches. */
function hashesOf(bytes: Buffer, charset: string, collation: string): number[] {
  const relation: Relation = {
    id: 1,
    name: ['d', 't'],
    columns: [
      { name: 'w', type: 'varchar(20)', code: 15, modifier: 80, charset, identifies: true },
    ],
    form: 'mysql/row-image',
    before: 'full',
  }
  const column = {
    name: 'w',
    type: 'varchar(20)',
    word: 'varchar',
    charset,
    collation,
    nullable: false,
    fills: false,
    generated: false,
    follows: false,
  }
  const keys = [{ name: 'PRIMARY', parts: [{ column: 'w', prefix: false, nullable: false }] }]
  const target = { database: 'd', name: 't', isSequence: false, columns: [column], keys }
  const cascades = new Cascades([]).of('d', 't')
  const table = new MysqlApplyTable(relation, { target, cascades, charsets: new Set([charset]) })
  const cells = Int32Array.of(0, bytes.length)
  return [...table.keys({ kind: 'insert', relation, rows: 1, bytes, cells })]
}

async function tablesOf(
  server: FamilyServer,
  database: string,
): Promise<{ readonly names: string[]; readonly creates: string[] }> {
  const tables = await server.query<{ n: string }>(
    'select table_name as n from information_schema.tables where table_schema = ? order by 1',
    [database],
  )
  const creates: string[] = []
  for (const { n } of tables) {
    const [row] = await server.query(`show create table \`${database}\`.\`${n}\``)
    creates.push(String(Object.values(row ?? {})[1]))
  }
  return { names: tables.map(({ n }) => n), creates }
}

/** Statements of other sessions that wait for a lock. */
async function waiting(server: FamilyServer): Promise<number> {
  const [row] = await server.query<{ n: number }>(
    `select count(*) as n from information_schema.processlist where info like 'REPLACE INTO redoubt.applied_mark%'
     and state like '%lock%'`,
  )
  return row?.n ?? 0
}

/** Ends all sessions of root but these two. */
async function killOthers(server: FamilyServer, but: number): Promise<void> {
  const rows = await server.query<{ id: number }>(
    `select id from information_schema.processlist where user = 'root' and id <> connection_id() and id <> ?`,
    [but],
  )
  for (const { id } of rows) await server.query(`kill ${id}`).catch(() => undefined)
}

/** Applies the rows of all transactions again, without the definitions; returns how many tables there were. */
async function rowsOnly(
  follow: Follow,
  source: FamilyServer,
  after: Position,
  accepts: (name: readonly string[]) => boolean,
): Promise<number> {
  const names = new Set<string>()
  for (const batch of await readAll(source, { after, accepts })) {
    const transactions = batch.transactions.map((one) => ({
      ...one,
      changes: one.changes.filter(({ kind }) => kind !== 'statement'),
    }))
    for (const change of transactions.flatMap((one) => one.changes)) {
      if ('relation' in change) names.add(change.relation.name.join('.'))
    }
    await follow.take({ ...batch, transactions })
  }
  await follow.commit()
  return names.size
}

/** Compares all tables; returns how many there are. */
export async function compare(
  source: FamilyServer,
  target: FamilyServer,
  without: readonly string[] = [],
): Promise<number> {
  const of = async (server: FamilyServer) => {
    const all = Object.entries(await checksums(server))
    const own = all.filter(([name]) => !name.startsWith('redoubt.') && !without.includes(name))
    return Object.fromEntries(own)
  }
  const theirs = await of(source)
  assert.deepEqual(await of(target), theirs)
  return Object.keys(theirs).length
}

/** Statements that changed rows since the server's start. */
async function statementsOf(server: FamilyServer): Promise<number> {
  const rows = await server.query<{ Value: string }>(
    `show global status where Variable_name in ('Com_insert', 'Com_update', 'Com_delete')`,
  )
  return rows.reduce((sum, { Value }) => sum + Number(Value), 0)
}

export async function randomLoad(server: FamilyServer, rounds = 150): Promise<void> {
  const dice = new Dice(20261122)
  await using client = await server.connect()
  const run = (sql: string, values: readonly unknown[] = []) => client.query(sql, [...values])
  await run('create database if not exists d')
  await run('use d')
  const tables = [
    'keyed (id int primary key, v varchar(400), n double, f float, at timestamp(3) null on update current_timestamp(3), long_one longtext) character set utf8mb4',
    'two (a int, b varchar(20), c text, primary key (b, a))',
    'bare (a int, b varchar(20), f float, n decimal(20,5)) character set latin1',
    'uniques (id int primary key, u varchar(20) character set utf8mb4, w int, unique key (u), unique key (w))',
    'parent (id int primary key, v int)',
    'child (id int primary key, pid int, key (pid), constraint c foreign key (pid) references parent (id) on delete cascade on update cascade)',
  ]
  for (const table of tables) await run(`create table if not exists ${table}`)
  for (let round = 0; round < rounds; round++) {
    await run('begin')
    const count = round % 40 === 39 ? 200 : 1 + dice.roll(6)
    for (let at = 0; at < count; at++) await run(...step(dice))
    await run(dice.roll(8) === 0 ? 'rollback' : 'commit')
  }
}

function step(dice: Dice): [string, unknown[]] {
  const id = dice.roll(200)
  const text = "aé表😀'\\".repeat(dice.roll(20))
  const choices: [string, unknown[]][] = [
    [
      'replace into keyed (id, v, n, f, at) values (?, ?, ?, ?, now(3))',
      [id, text, id / 7, id / 3],
    ],
    ['update keyed set v = ?, n = n * 2 where id between ? and ?', [text, id, id + 5]],
    ['update ignore keyed set id = id + 1000 where id = ?', [id]],
    ['delete from keyed where id between ? and ?', [id, id + 2]],
    ['insert ignore into two values (?, ?, ?)', [id % 10, String(id % 7), text]],
    [`update ignore two set b = concat(b, 'É') where a = ?`, [id % 10]],
    ['delete from two where a = ?', [id % 10]],
    [
      'insert into bare values (?, ?, 0.1, 1.5), (?, null, ?, null)',
      [id % 5, 'same', id % 5, id / 3],
    ],
    ['update bare set b = ? where a = ? limit 1', [id % 2 === 0 ? 'OTHER' : 'other', id % 5]],
    ['delete from bare where a = ? limit 2', [id % 5]],
    ['insert ignore into uniques values (?, ?, ?)', [id, `e${id % 30}`, id % 50]],
    [`replace into uniques values (?, ?, ?)`, [id, id % 9 === 0 ? null : `É${id % 30}`, id % 70]],
    ['update ignore uniques set u = concat(?, u), w = w + 1 where id > ?', ['x', id]],
    ['update uniques set w = null where id = ?', [id]],
    ['insert ignore into parent values (?, 1)', [id % 40]],
    ['insert ignore into child select ?, id from parent where id = ?', [id, id % 40]],
    ['delete from parent where id = ?', [id % 40]],
    ['update ignore parent set id = id + 1 where id = ?', [id % 40]],
  ]
  return dice.pick(choices)
}
