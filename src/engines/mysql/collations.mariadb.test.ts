import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  Capture,
  checksums,
  requestOf,
  takeBase,
} from '../../../test/support/mysql-family-harness.ts'
import { startMariadb } from '../../../test/support/servers/mariadb.ts'
import type { FamilyServer } from '../../../test/support/servers/mysql-family.ts'
import { mysql } from './mysql.ts'

// Collations that have no number of their own in information_schema.COLLATIONS.
const collation = 'utf8mb4_uca1400_swedish_nopad_as_cs'
const words = ['a', 'A', 'ä', 'å', 'z', 'ö', 'a ', 'ß', 'ss']

test('collations of Unicode 14 come back with tables and routines, by base and by log', async () => {
  await using server = await startMariadb()
  await using capture = await Capture.start(server.url)
  await make(server, 'in_base')
  using base = await takeBase(capture.engine)
  await make(server, 'in_log')
  await capture.caughtUp(server)
  await using target = await startMariadb()
  await mysql.restore(requestOf(base, capture.archive, target.url))
  for (const database of ['in_base', 'in_log']) {
    assert.deepEqual(await describe(target, database), await describe(server, database))
  }
  assert.deepEqual(await checksums(target), await checksums(server))
})

/** What depends on the session's collation, and what names one of its own. */
async function make(server: FamilyServer, database: string): Promise<void> {
  await using client = await server.connect()
  await client.query(`set names utf8mb4 collate ${collation}`)
  await client.query(`create database ${database} collate utf8mb4_uca1400_ai_ci`)
  await client.query(`use ${database}`)
  await client.query(`create table t (id int primary key auto_increment, own varchar(20),
    other varchar(20) collate ${collation}, narrow varchar(20) character set utf8mb3 collate uca1400_spanish_ai_ci,
    unique key (other))`)
  for (const word of words) {
    await client.query('insert into t (own, other, narrow) values (?, ?, ?)', [word, word, word])
  }
  // Its statement format makes the session's collation decide what it does again.
  await client.query(`create table made as select concat('x', 'y') as session_own, own from t`)
  await client.query(`create view same as select id from t where own = 'å' and 'A' = 'a'`)
  await client.query(
    `create procedure count_same(in word varchar(20)) select count(*) as n from t where own = word`,
  )
  await client.query(
    `create function is_same(a varchar(20), b varchar(20)) returns int deterministic return a = b`,
  )
}

async function describe(server: FamilyServer, database: string): Promise<unknown> {
  await using client = await server.connect(database)
  const rows = async (sql: string) => (await client.query(sql))[0]
  return {
    shown: [
      await rows(`show create database ${database}`),
      await rows('show create table t'),
      await rows('show create table made'),
      await rows('show create view same'),
      await rows('show create procedure count_same'),
      await rows('show create function is_same'),
    ],
    sorted: await rows('select own, other from t order by other, id'),
    own: await rows('select own from t order by own, id'),
    same: await rows('select id from same'),
    called: await rows(`select is_same('a', 'A') as cased, is_same('a', 'ä') as accented`),
  }
}
