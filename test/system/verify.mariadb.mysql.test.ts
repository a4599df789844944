import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startMariadb } from '../support/servers/mariadb.ts'
import { startMysql } from '../support/servers/mysql.ts'
import { namedRows, unequal, verifyEnds } from '../support/verify-ends.ts'

const tables = `create database d; use d;
  create table t (id int primary key, v varchar(50) character set utf8mb4 collate utf8mb4_unicode_ci, f float, e double, dc decimal(20,10), b varbinary(50), tm datetime(6), ts timestamp(3) null,
    x bit(9), l varchar(20) character set latin1, s set('x','y') character set utf8mb4 collate utf8mb4_bin, n enum('a','b') character set utf8mb4 collate utf8mb4_bin, y year, g geometry) engine=innodb;
  insert into t values (1, 'text ', 0.1, 0.1, 1.5, 0x00ff, '2020-01-01 00:00:00.5', '2020-01-01 00:00:00.25', b'101', 'é', 'x,y', 'b', 2020, ST_GeomFromText('POINT(9 10)')), (2, '', 3.4028234e38, 1.7976931348623157e308, 0, '', null, null, b'0', '', '', 'a', 0, null),
    (3, null, -1.17549435e-38, 5e-324, -99, null, null, null, null, null, null, null, null, null);
  create table names (w varchar(40) character set utf8mb4 collate utf8mb4_unicode_ci primary key, v int); insert into names values ('a', 1), ('B', 2), ('ß', 3), ('Ölung', 4), ('😀', 5);
  create table bag (a int, j json); insert into bag values (1, '{"a": 1, "b": 2}'), (1, '{"a": 1, "b": 2}');
  create table papers (id int primary key, j json);`

test('MariaDB and MySQL are compared by value: JSON is, too, though one keeps text and the other does not', async () => {
  await using mariadb = await startMariadb()
  await using mysql = await startMysql()
  for (const server of [mariadb, mysql]) await server.query(`set time_zone = '+00:00'; ${tables}`)
  const spellings = [
    ['{"b":1,  "a":[1.50,true,null,"\\\\u00e4"]}', '{"a": [1.5, true, null, "ä"], "b": 1}'],
    ['{"a": 1}', '{"a": "1"}'],
    ['[]', '[]'],
    ['18446744073709551615', '18446744073709551615'],
    ['[1,2]', '[2,1]'],
    ['null', null],
  ] as const
  for (const [at, [one, other]] of spellings.entries()) {
    await mariadb.query(`insert into papers values (${at}, '${one}')`, [], 'd')
    await mysql.query(
      `insert into papers values (${at}, ${other === null ? 'null' : `'${other}'`})`,
      [],
      'd',
    )
  }
  await mariadb.query(`update bag set j = '{"b":2,"a":1}'`, [], 'd')
  for (const [from, to] of [
    [mariadb, mysql],
    [mysql, mariadb],
  ] as const) {
    const verified = await verifyEnds(from.url, to.url)
    assert.deepEqual(namedRows(verified), [
      'different d.papers id=1: j',
      'different d.papers id=4: j',
      'different d.papers id=5: j',
    ])
    const by = new Map(verified.tables.map((table) => [table.name[1], table.by]))
    assert.deepEqual([by.get('t'), by.get('names')], ['ranges', 'ranges'])
    assert.deepEqual(verified.findings, [])
    assert.deepEqual(verified.structure, [])
  }
  const repaired = await verifyEnds(mysql.url, mariadb.url, { repair: 'apply' })
  assert.deepEqual(unequal(repaired), [])
  const back = await verifyEnds(mariadb.url, mysql.url)
  assert.deepEqual(namedRows(back), [])
})
