import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { carry } from './mysql-carry.ts'
import { hasNewer, makeEverything } from './mysql-every-type.ts'
import type { StartServer } from './mysql-family-harness.ts'
import type { FamilyServer } from './servers/mysql-family.ts'
import { namedRows, unequal, verifyEnds } from './verify-ends.ts'
import { verbTrial } from './verify-verb.ts'

const loose =
  "set session sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', time_zone = '+00:00'"

/** Runs statements on both servers. */
async function onBoth(servers: readonly FamilyServer[], sql: string): Promise<void> {
  for (const server of servers) await server.query(`${loose}; ${sql}`)
}

/** Comparing and repairing between two servers of the MySQL family. */
export function verifyFamilyTests(start: StartServer): void {
  test('values of every type are equal after a copy, and a sample of them is', async () => {
    await using source = await start()
    await using target = await start()
    await makeEverything(source)
    await carry(source.url, target.url)
    const verified = await verifyEnds(source.url, target.url)
    assert.deepEqual(unequal(verified), [])
    assert.equal(verified.equal, true)
    assert.ok(verified.tables.length >= 12)
    const by = new Map(verified.tables.map((table) => [table.name.join('.'), table.by]))
    assert.deepEqual(
      [by.get('types.numbers'), by.get('types.no_key'), by.get('types.parts')],
      ['ranges', 'buckets', 'ranges'],
    )
    const numbers = verified.tables.find(({ name }) => name[1] === 'numbers')
    assert.deepEqual([numbers?.sourceRows, numbers?.targetRows], [4n, 4n])
    const sample = await verifyEnds(source.url, target.url, { mode: 'sample=60%', seed: 'x' })
    assert.deepEqual(unequal(sample), [])
  })

  test('each kind of difference is found and named, in both directions', async () => {
    await using source = await start()
    await using target = await start()
    await makeDifferences(source, target)
    const verified = await verifyEnds(source.url, target.url)
    assert.deepEqual(namedRows(verified), await named(target))
    assert.equal(verified.equal, false)
    assert.deepEqual(verified.structure, [])
    const back = await verifyEnds(target.url, source.url)
    const turned = namedRows(verified).map((line) =>
      line.replace(/^(missing|extra)/, (kind) => (kind === 'extra' ? 'missing' : 'extra')),
    )
    assert.deepEqual(namedRows(back), turned.sort())
  })

  test('a plan makes the target equal when an operator runs it', async () => {
    await using source = await start()
    await using target = await start()
    await makeDifferences(source, target)
    const planned = await verifyEnds(source.url, target.url, { repair: 'plan' })
    const statements = planned.repair?.statements ?? []
    assert.ok(statements.length > 10)
    assert.equal((await verifyEnds(source.url, target.url)).equal, false)
    await target.query(`${loose}; ${statements.join(';\n')}`)
    const verified = await verifyEnds(source.url, target.url)
    assert.deepEqual([unequal(verified), verified.equal], [[], true])
  })

  test('a repair makes the target equal, exactly, and stamps that set themselves stay', async () => {
    await using source = await start()
    await using target = await start()
    await makeEverything(source)
    await carry(source.url, target.url)
    await spoil(target)
    const before = await verifyEnds(source.url, target.url)
    assert.ok(namedRows(before).length >= 8, namedRows(before).join('\n'))
    // Its own triggers keep this one from being repaired.
    const out = { exclude: ['types.numbers'] }
    const repaired = await verifyEnds(source.url, target.url, { ...out, repair: 'apply' })
    assert.deepEqual([unequal(repaired), repaired.equal], [[], true])
    const after = await verifyEnds(source.url, target.url, out)
    assert.deepEqual([unequal(after), namedRows(after)], [[], []])
    const refused = await verifyEnds(source.url, target.url, { repair: 'apply' })
    const numbers = refused.tables.find(({ name }) => name[1] === 'numbers')
    assert.deepEqual([numbers?.repaired, refused.equal], [0, false])
    assert.match(numbers?.unrepaired.join() ?? '', /triggers \(t_one/)
  })

  test('values of a unique key that stand in each other’s place are put right', async () => {
    await using source = await start()
    await using target = await start()
    await onBoth(
      [source, target],
      'create database d; create table d.t (id int primary key, u int not null, unique key (u))',
    )
    await source.query('insert into d.t values (1, 10), (2, 20), (3, 30)')
    await target.query('insert into d.t values (1, 20), (2, 30), (3, 10)')
    const verified = await verifyEnds(source.url, target.url, { repair: 'apply' })
    assert.deepEqual([unequal(verified), verified.tables[0]?.repaired], [[], 3])
    const rows = await target.query('select * from d.t order by id')
    assert.deepEqual(rows, [
      { id: 1, u: 10 },
      { id: 2, u: 20 },
      { id: 3, u: 30 },
    ])
  })

  test('nobody raises a false alarm beside writers on both sides', async () => {
    await using source = await start()
    await using target = await start()
    await onBoth([source, target], busy)
    await source.query('update d.t set v = -1 where id = 777; delete from d.bag where a = 13')
    const stop = new AbortController()
    const writing = writeBoth(source, target, stop.signal)
    try {
      const verified = await verifyEnds(source.url, target.url, { recheckMs: 6000 })
      assert.deepEqual(namedRows(verified), ['different d.t id=777: v', 'extra d.bag a=13 b=x13'])
    } finally {
      stop.abort()
      await writing
    }
  })

  test('the verb ends with the exit code that says it, and leaves no statement behind', async () => {
    await using source = await start()
    await using target = await start()
    await onBoth(
      [source, target],
      "create database d; create table d.one (id int primary key, v varchar(10)); insert into d.one values (1, 'a'), (2, 'b'), (3, 'c')",
    )
    await verbTrial({
      from: source.url,
      to: target.url,
      scope: 'd',
      spoil: () => target.query("update d.one set v = 'other' where id = 2"),
      hold: async () => {
        const client = await target.connect('d')
        await client.query('lock tables one write')
        return client
      },
      endAtOnce: true,
      readers: async () => {
        const rows = await target.query<{ Info: string | null }>('show full processlist')
        return rows.filter(({ Info }) => Info?.includes('`d`.`one`')).length
      },
    })
  })

  test('keys in one order or another: texts by case and accent, pairs, bytes, large numbers', async () => {
    await using source = await start()
    await using target = await start()
    await makeKeys([source, target])
    if (source.scheme === 'mariadb') {
      const uuids = Array.from({ length: 3000 }, (_, at) => `('${uuidOf(at)}', ${at})`)
      await onBoth(
        [source, target],
        `use k; create table ids (u uuid primary key, v int); insert into ids values ${uuids.join(', ')}`,
      )
      await target.query('update k.ids set v = -1 where v = 500')
      const one = await verifyEnds(source.url, target.url, { include: ['k.ids'] })
      assert.deepEqual([one.tables[0]?.by, one.tables[0]?.different], ['ranges', 1])
      await onBoth([source, target], 'drop table k.ids')
    }
    const equal = await verifyEnds(source.url, target.url)
    assert.deepEqual(unequal(equal), [])
    const by = new Map(equal.tables.map((table) => [table.name[1], table.by]))
    assert.deepEqual(
      [by.get('pairs'), by.get('words'), by.get('moments'), by.get('floats')],
      ['ranges', 'ranges', 'ranges', 'buckets'],
    )
    await target.query(`use k; update words set v = -1 where w = 'w1234'; delete from pairs where a = 1 and b = 700;
      insert into bin values (0x00ff00, 5); update moments set v = 9 where t = '2020-01-01 00:20:00'; delete from big where n = 18446744073709550616`)
    const verified = await verifyEnds(source.url, target.url)
    assert.deepEqual(namedRows(verified), [
      'different k.moments t=2020-01-01 00:20:00 z=z: v',
      'different k.words w=w1234: v',
      'extra k.bin b=0x00ff00',
      'missing k.big n=18446744073709550616',
      'missing k.pairs a=1 b=700',
    ])
    // Another collation, another order: what is equal is equal all the same.
    await target.query(
      `alter table k.words modify w varchar(40) character set utf8mb4 collate utf8mb4_bin not null`,
    )
    const other = await verifyEnds(source.url, target.url)
    assert.equal(other.tables.find(({ name }) => name[1] === 'words')?.by, 'buckets')
    assert.deepEqual(namedRows(other), namedRows(verified))
    assert.match(
      other.structure.map(({ said }) => said).join(),
      /column w: collation is utf8mb4_bin/,
    )
  })
}

function uuidOf(at: number): string {
  const hex = createHash('sha256').update(String(at)).digest('hex')
  return hex.replace(/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*$/, '$1-$2-4$3-8$4-$5')
}

/** Below `k`: the numbers to 2,999. */
const thousands =
  'select a.n + 10 * b.n + 100 * c.n + 1000 * e.n as i from n a, n b, n c, n e where e.n < 3'

/** Ten thousand rows by key, and a bag. */
const busy = `create database d; create table d.t (id int primary key, v bigint not null, w varchar(20), key (v));
  create table d.n (n int primary key); insert into d.n values (0), (1), (2), (3), (4), (5), (6), (7), (8), (9);
  insert into d.t select a.n + 10 * b.n + 100 * c.n + 1000 * e.n, 0, 'x' from d.n a, d.n b, d.n c, d.n e;
  create table d.bag (a int, b varchar(10)); insert into d.bag select a.n + 10 * b.n, concat('x', a.n + 10 * b.n) from d.n a, d.n b`

/** The same writes on both, the target a moment later, as a follower has them. */
async function writeBoth(
  source: FamilyServer,
  target: FamilyServer,
  signal: AbortSignal,
): Promise<void> {
  await using first = await source.connect('d')
  await using second = await target.connect('d')
  for (let at = 0; !signal.aborted; at++) {
    const id = (at * 7919) % 10_000
    const skips = id === 777
    const sql = skips
      ? 'select 1'
      : at % 3 === 0
        ? `replace into t values (${20_000 + id}, ${at}, 'new'); insert into bag values (${1000 + at}, 'new')`
        : at % 3 === 1
          ? `update t set v = ${at} where id = ${id}`
          : `delete from t where id = ${20_000 + id}; delete from bag where a = ${998 + at}`
    await first.query(sql)
    await second.query(sql)
    // A writer that never rests would leave no processor to who compares.
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

const byteTable = `id int primary key, i int, c varchar(50) character set utf8mb4 collate utf8mb4_bin, f float, d double, dc decimal(20,10), b varbinary(300), t text,
  tm datetime(6), x bit(9), p int, q int`

async function makeDifferences(source: FamilyServer, target: FamilyServer): Promise<void> {
  const rows = Array.from(
    { length: 30 },
    (_, at) =>
      `(${at}, ${at}, 'text', 0.1, 0.1, 1.5, 0x0102, repeat('long ', 2000), '2020-01-01 00:00:00.5', b'1', 1, 2)`,
  )
  await onBoth(
    [source, target],
    `create database d; create table d.t (${byteTable}); insert into d.t values ${rows.join(', ')};
     create table d.bag (a int, b varchar(10)); insert into d.bag values (1, 'x'), (1, 'x'), (2, null), (3, ''), (4, 'z');
     create table d.opt (a int, b int, unique key (a)); insert into d.opt values (1, 1), (null, 2), (null, 2)`,
  )
  await target.query(`${loose}; use d; update t set i = i ^ 1 where id = 1; update t set c = null where id = 2; update t set c = '' where id = 3;
    update t set c = 'Text' where id = 4; update t set c = 'text ' where id = 5; update t set d = 0.10000000000000002 where id = 6;
    update t set f = 0.10000001 where id = 7; update t set dc = 1.5000000001 where id = 8; update t set b = 0x010200 where id = 9; update t set b = 0x0103 where id = 10;
    update t set t = concat(substring(t, 1, 4999), 'X', substring(t, 5001)) where id = 11; update t set tm = '2020-01-01 00:00:00.500001' where id = 12;
    update t set x = b'100000001' where id = 13; update t set p = 2, q = 1 where id = 14; delete from t where id = 15; insert into t (id) values (-5), (1000);
    insert into bag values (1, 'x'), (5, 'new'); delete from bag where a = 4; update bag set b = '' where a = 2; update bag set b = null where a = 3;
    insert into opt values (null, 2)`)
  await source.query(
    `${loose}; use d; update t set d = 0e0 where id = 16; update t set c = null, i = 3 where id = 17`,
  )
  await target.query(
    `${loose}; use d; update t set d = -0e0 where id = 16; update t set c = 'NULL', i = 3 where id = 17`,
  )
}

async function named(target: FamilyServer): Promise<readonly string[]> {
  // Older MariaDB keeps 0 where -0 is written.
  const [row] = await target.query<{ d: string }>('select concat(d) as d from d.t where id = 16')
  const one = (id: number, columns: string) => `different d.t id=${id}: ${columns}`
  return [
    one(1, 'i'),
    one(2, 'c'),
    one(3, 'c'),
    one(4, 'c'),
    one(5, 'c'),
    one(6, 'd'),
    one(7, 'f'),
    one(8, 'dc'),
    one(9, 'b'),
    one(10, 'b'),
    one(11, 't'),
    one(12, 'tm'),
    one(13, 'x'),
    one(14, 'p, q'),
    ...(row?.d === '-0' ? [one(16, 'd')] : []),
    one(17, 'c'),
    'missing d.t id=15',
    'extra d.t id=-5',
    'extra d.t id=1000',
    'extra d.bag a=1 b=x',
    'extra d.bag a=5 b=new',
    'missing d.bag a=4 b=z',
    'extra d.bag a=2 b=',
    'missing d.bag a=2 b=NULL',
    'missing d.bag a=3 b=',
    'extra d.bag a=3 b=NULL',
    'extra d.opt a=NULL b=2',
  ].sort()
}

/** Damage of many kinds to what `makeEverything` made. */
async function spoil(target: FamilyServer): Promise<void> {
  await target.query(`${loose}; use types; delete from texts where id = 1; update texts set c = 'other', e = 'a', vb = null where id = 3;
    update times set dt6 = '2000-02-02 00:00:00.25' where id = 1; delete from times where id = 2; delete from shapes where id = 2;
    update shapes set g = null where id = 1; insert into no_key values (7, 'new'); delete from no_key where a = 1 limit 1; delete from one_text where a = '';
    update parts set b = 'y ' where a = 1; delete from old_kind where a = 1; insert into empty_one values (5); update numbers set f = 1.5, bu = 1 where b = 39`)
  if (hasNewer(target)) {
    await target.query(`${loose}; use types; delete from papers where id = 1; update papers set j = '[1]' where id = 3;
      delete from computed where a = 2; delete from hidden where a = 1; delete from special where id = 1`)
  }
}

async function makeKeys(servers: readonly FamilyServer[]): Promise<void> {
  const ten =
    'create table n (n int primary key); insert into n values (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)'
  await onBoth(
    servers,
    `create database k; use k; ${ten};
     create table words (w varchar(40) character set utf8mb4 collate utf8mb4_unicode_ci primary key, v int);
     insert into words select concat(case when i % 3 = 0 then 'W' else 'w' end, i), i from (${thousands}) s;
     insert into words values ('', 0), ('ärger', 1), ('zebra', 2), ('Ölung', 3), ('emoji 😀', 4), ("quote'\\\\", 5);
     create table pairs (a int, b bigint, c varchar(10), primary key (a, b)); insert into pairs select i % 3, i, 'x' from (${thousands}) s;
     create table bin (b varbinary(20) primary key, v int); insert into bin select unhex(left(sha2(i, 256), 40)), i from (${thousands}) s; insert into bin values ('', 0), (0x00, 1), (0xff00, 2);
     create table moments (t datetime, z char(3), v int, primary key (t, z)); insert into moments select '2020-01-01' + interval i minute, 'z', i from (${thousands}) s;
     create table big (n bigint unsigned primary key); insert into big select 18446744073709551615 - i from (${thousands}) s;
     create table floats (f double primary key, v int); insert into floats select i / 7, i from (${thousands}) s`,
  )
}
