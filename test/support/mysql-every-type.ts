import type { FamilyServer } from './servers/mysql-family.ts'

/** Names with what breaks naive quoting; a newline only where a stock client's script need not hold it. */
export const oddDatabase = 'o\'d`d "d" ü.b'
export const oddTable = 't\'a`b "c" %_ 表\\n'

/** Whether the server has JSON, computed columns and what else came after MySQL 5.6. */
export function hasNewer(server: FamilyServer): boolean {
  return server.version !== '5.6'
}

/** Fills a server with every kind of object and value that the family has. */
export async function makeEverything(server: FamilyServer): Promise<void> {
  const mariadb = server.scheme === 'mariadb'
  const old = !hasNewer(server)
  const name = (text: string) => `\`${text.replaceAll('`', '``')}\``
  const loose =
    "set session sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', time_zone = '+00:00'"
  await using client = await server.connect()
  const run = (sql: string, values: readonly unknown[] = []) => client.query(sql, [...values])
  await run(loose)
  await run('create database types character set latin1')
  await run('use types')
  await run(`create table numbers (
    id int not null auto_increment primary key, t tinyint, tu tinyint unsigned zerofill, s smallint, m mediumint unsigned, i int,
    b bigint, bu bigint unsigned, d decimal(65,30), d2 decimal(10,0) unsigned, f float, f2 float(7,4), db double, bit1 bit(1), bit9 bit(9), bit64 bit(64), bo boolean, y year)`)
  await run(`insert into numbers values
    (0, -128, 255, -32768, 16777215, -2147483648, -9223372036854775808, 18446744073709551615, '-12345678901234567890123456789012345.123456789012345678901234567890', 9999999999, 16777215, 123.4567, 1.7976931348623157e308, b'1', b'101010101', b'1111111111111111111111111111111111111111111111111111111111111111', true, 2155),
    (null, 127, 0, 32767, 0, 2147483647, 9223372036854775807, 0, 0, 0, 0.1, -0.0001, 2.2250738585072014e-308, b'0', b'0', b'0', false, 0),
    (null, null, null, null, null, null, null, null, null, null, 3.4028234e38, null, -0e0, null, b'000001001', b'1001', null, 1901),
    (null, 1, 9, 10, 13, 0, 39, 92, 34, 5, 1.17549435e-38, 1.5, 0.1, null, b'1011100', b'0101110000001001', null, null)`)
  await run(`create table texts (
    id int not null primary key, c char(10), v varchar(255) character set utf8mb4, l varchar(50) character set latin1, u varchar(50) character set ucs2,
    g varchar(50) character set gbk, bi binary(8), vb varbinary(300), tt tinytext, tx text character set utf8mb4, mt mediumtext, lt longtext, tb tinyblob, bl blob, mb mediumblob, lb longblob,
    e enum('a','b''c','d,e','ü') character set utf8mb4, st set('x','y','z'))`)
  const every = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))
  await run(
    `insert into texts values (1, 'abc', 'tab\\t nl\\n cr\\r bs\\\\ q'' d" z\\0 emoji 😀 N \\\\N', 'é ÿ', 'ü表', '中文', 0x0100, ?, 'x', repeat('ü', 100), 'x', 'x', 'x', ?, ?, ?, 'b''c', 'x,z')`,
    [every, every, every, every],
  )
  await run(
    `insert into texts (id, c, v, e, st) values (2, '', '', '', ''), (3, '  lead', '\\\\N', 'ü', 'x,y,z'), (4, null, 'N', null, null)`,
  )
  await run(`create table times (
    id int not null primary key, d date, dt datetime, dt6 datetime(6), ts timestamp null, ts6 timestamp(6) null, t time, t6 time(6), on_up timestamp not null default current_timestamp on update current_timestamp)`)
  await run(`insert into times values
    (1, '9999-12-31', '9999-12-31 23:59:59', '1000-01-01 00:00:00.000001', '2038-01-19 03:14:07', '1970-01-01 00:00:01.999999', '838:59:59', '-838:59:58.999999', '2001-01-01 01:01:01'),
    (2, '0000-00-00', '0000-00-00 00:00:00', '0000-00-00 00:00:00', '0000-00-00 00:00:00', '0000-00-00 00:00:00', '00:00:00', '-00:00:01', '2001-01-01 01:01:01'),
    (3, '2020-00-10', '2020-02-31 10:00:00', '2020-02-30 00:00:00.5', null, null, null, null, '0000-00-00 00:00:00')`)
  await run(
    `create table shapes (id int not null primary key, g geometry, p point not null, pl polygon, ${old ? 'key (id)' : 'spatial index (p)'}) engine=innodb`,
  )
  await run(`insert into shapes values (1, ST_GeomFromText('LINESTRING(0 9,10 92,0.1 -5)'), ST_GeomFromText('POINT(9 10)'), null),
    (2, null, ST_GeomFromText('POINT(0 0)', 4326), ST_GeomFromText('POLYGON((0 0,0 5,5 5,5 0,0 0))'))`)
  if (!old) await makeNewer(run)
  await run(
    `create table parts (a int not null, b varchar(10), primary key (a)) partition by range (a) (partition p0 values less than (10), partition p1 values less than maxvalue)`,
  )
  await run(`insert into parts values (1, 'x'), (11, 'y'), (0, null)`)
  await run('create table no_key (a int, b text)')
  await run(`insert into no_key values (1, 'x'), (1, 'x'), (null, null)`)
  await run('create table empty_one (a int primary key)')
  await run(`create table one_text (a varchar(10))`)
  await run(`insert into one_text values (''), (null), ('x')`)
  await run(
    `create table old_kind (a int primary key, b varchar(20), fulltext key (b)) engine=myisam`,
  )
  await run(`insert into old_kind values (1, 'words here'), (2, null)`)
  await run(
    `create table second_counter (a int not null, id int not null auto_increment, primary key (a), key (id), key (a, id))`,
  )
  await run('insert into second_counter (a) values (5), (6)')
  await run(
    `create table words (id int primary key, w text, x text, fulltext key (w), fulltext key both_of_them (w, x), unique key (w(5)))`,
  )
  await run(`insert into words values (1, 'some words', 'and more')`)
  await run(`create table parent (id int primary key, name varchar(10))`)
  await run(
    `create table child (id int primary key, pid int, key (pid), constraint \`fk, (odd)\` foreign key (pid) references parent (id) on delete cascade on update cascade)`,
  )
  await run(
    `insert into parent values (1, 'a'), (2, 'b'); insert into child values (10, 1), (11, 1), (20, 2)`,
  )
  if (mariadb) {
    await run('create table hidden (a int primary key, b int invisible default 7)')
    await run(`create table special (id int primary key, u uuid, i6 inet6)`)
    await run(`insert into special values (1, uuid(), '::1'), (2, null, null)`)
    if (server.version === '11.8') {
      await run(
        'create table vectors (id int primary key, v vector(3) not null, w vector(2), vector index (v))',
      )
      await run(
        `insert into vectors values (1, vec_fromtext('[1,2.5,-3]'), null), (2, vec_fromtext('[0,9,10]'), vec_fromtext('[1e-40,92]'))`,
      )
    }
    await run('create sequence counter start with 100 increment by 3 cache 5')
    await run('select nextval(counter), nextval(counter)')
    await run('create table history (a int primary key, b int) with system versioning')
    await run(
      `insert into history values (1, 1), (2, 2); update history set b = 3 where a = 1; delete from history where a = 2`,
    )
  } else if (server.version !== '5.6') {
    await run('create table hidden (a int primary key, b int default 7 invisible)')
    await run(
      `create table special (id int primary key, v vector(3), d int default (1 + 1), chk int check (chk > 0), key fn ((id + d)))`,
    )
    await run(
      `insert into special (id, v, chk) values (1, to_vector('[1,2.5,-3]'), 5), (2, null, null)`,
    )
  }
  if (!old) await run('insert into hidden (a, b) values (1, 2), (2, null)')
  await makePrograms(run, mariadb)
  await run(`create database ${name(oddDatabase)} character set utf8mb4`)
  await run(
    `create table ${name(oddDatabase)}.${name(oddTable)} (\`co'l\`\`umn "x" ü\` varchar(20), \`select\` int primary key) comment 'it''s, (a) \\\\ "comment"'`,
  )
  await run(`insert into ${name(oddDatabase)}.${name(oddTable)} values ('v''a"l', 1), (null, 2)`)
  await run('set names utf8mb4')
}

type Run = (sql: string, values?: readonly unknown[]) => Promise<unknown>

/** What MySQL 5.6 does not have. */
async function makeNewer(run: Run): Promise<void> {
  await run(`create table papers (id int not null primary key, j json)`)
  await run(
    `insert into papers values (1, '{"a": [1, 2.5, null, true, "t\\\\tü😀\\\\\\\\ \\\\" "], "b": {}}'), (2, null), (3, '"text"'), (4, '[]')`,
  )
  await run(`create table computed (a int not null, b int generated always as (a * 2) virtual, c varchar(20) generated always as (concat('n', a)) stored,
    primary key (a), key (c))`)
  await run('insert into computed (a) values (1), (2), (3)')
}

async function makePrograms(run: Run, mariadb: boolean): Promise<void> {
  await run(`create view b_view as select a.id, a.name from parent a`)
  await run(`create view a_view as select id from b_view where name <> 'x'`)
  await run(`create function twice(n int) returns int deterministic return n * 2`)
  await run(
    `create procedure proc(in x int) begin declare y varchar(10) default ';''\\\\'; if x > 1 then select 'ü'; end if; end`,
  )
  await run(
    `create trigger t_one before insert on numbers for each row begin set new.t = 1; set new.s = twice(2); end`,
  )
  if (mariadb)
    await run(
      `create trigger t_two before insert on numbers for each row follows t_one set new.m = 3`,
    )
  await run(
    `create event ev on schedule every 1 day starts '2030-01-01 00:00:00' do begin delete from empty_one; end`,
  )
}
