import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import {
  Capture,
  checksums,
  requestOf,
  takeBase,
} from '../../../test/support/mysql-family-harness.ts'
import { type MariadbVersion, startMariadb } from '../../../test/support/servers/mariadb.ts'
import type { FamilyServer } from '../../../test/support/servers/mysql-family.ts'
import { mysql } from './mysql.ts'

/** The last moment of a TIMESTAMP, which marks rows that are still there, came later from MariaDB 11.5 on. */
const ways: readonly (readonly [from: MariadbVersion, to: MariadbVersion])[] = [
  ['10.11', '11.8'],
  ['11.8', '10.11'],
]

for (const [from, to] of ways) {
  test(`system-versioned rows of MariaDB ${from} are as present or past in ${to} as they were`, async () => {
    await using server = await startMariadb({ version: from })
    await server.query(
      'create database d; create table d.hidden (a int primary key, b int) with system versioning; create table d.named (a int primary key, b int, since timestamp(6) generated always as row start, `un``til` timestamp(6) generated always as row end, period for system_time (since, `un``til`)) with system versioning',
    )
    for (const name of ['hidden', 'named']) {
      await server.query(
        `insert into d.${name} (a, b) values (1, 1), (2, 2), (3, 3); update d.${name} set b = 20 where a = 2; delete from d.${name} where a = 3`,
      )
    }
    await using capture = await Capture.start(server.url)
    using base = await takeBase(capture.engine)
    for (const settings of [{}, { 'local-infile': 'OFF' }]) {
      await using target = await startMariadb({ version: to, settings })
      await mysql.restore(requestOf(base, undefined, target.url))
      const wanted = await look(server)
      assert.equal(wanted.length, 2 * (2 + 4))
      assert.deepEqual(await look(target), wanted)
      // What is present can be changed.
      await target.query('update d.hidden set b = 100 where a = 1; delete from d.named where a = 2')
      const [row] = await target.query(`select count(*) as n from d.hidden where b = 100`)
      assert.deepEqual(row, { n: 1 })
    }
    await using stock = await startMariadb({ version: to, settings: { 'local-infile': 'ON' } })
    const options = ['--local-infile=1', '--default-character-set=utf8mb4', '--binary-mode']
    execFileSync(`${stock.bin}/mariadb`, ['--no-defaults', ...stock.clientArgs, ...options], {
      cwd: base.files.path,
      input: readFileSync(`${base.files.path}/load.sql`),
      env: { ...process.env, MYSQL_PWD: 'dolphin-secret' },
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    assert.deepEqual(await look(stock), await look(server))
    await server.query(
      'insert into d.hidden (a, b) values (4, 4); update d.hidden set b = 200 where a = 2; delete from d.named where a = 1',
    )
    await capture.caughtUp(server)
    await using target = await startMariadb({ version: to })
    const replayed = mysql.restore(requestOf(base, capture.archive, target.url))
    if (from === '11.8') {
      await replayed
      assert.deepEqual(await look(target), await look(server))
    } else {
      // What the log says of present rows is history there: nothing is touched.
      await assert.rejects(
        replayed,
        (error) =>
          isFault(error, 'unsupported') &&
          /`?d`?\.`?hidden.* would become history/.test(error.message),
      )
      assert.deepEqual(await checksums(target), {})
    }
  })
}

async function look(server: FamilyServer): Promise<unknown[]> {
  const rows: unknown[] = []
  for (const [name, since, until] of [
    ['hidden', 'row_start', 'row_end'],
    ['named', 'since', '`un``til`'],
  ]) {
    rows.push(...(await server.query(`select '${name}' as t, a, b from d.${name} order by a`)))
    const past = `if(${until} > '2038-01-19 03:14:07', 'present', cast(${until} as char))`
    rows.push(
      ...(await server.query(
        `select '${name}' as t, a, b, ${since} as since, ${past} as past from d.${name} for system_time all order by a, ${until}`,
      )),
    )
  }
  return JSON.parse(JSON.stringify(rows)) as unknown[]
}

test('a log that makes a system-versioned table is not replayed into MariaDB 11.5 or later, one without is', async () => {
  await using server = await startMariadb({ version: '10.11' })
  await server.query('create database d; create table d.t (a int primary key)')
  await using capture = await Capture.start(server.url)
  using base = await takeBase(capture.engine)
  await server.query('insert into d.t values (1)')
  await capture.caughtUp(server)
  await using target = await startMariadb({ version: '11.8' })
  await mysql.restore(requestOf(base, capture.archive, target.url))
  assert.deepEqual(await checksums(target), await checksums(server))
  await server.query('alter table d.t add column b int, add system versioning')
  await capture.caughtUp(server)
  const again = mysql.restore(requestOf(base, capture.archive, target.url, { force: true }))
  await assert.rejects(
    again,
    (error) => isFault(error, 'unsupported') && /a table that the log makes/.test(error.message),
  )
  assert.deepEqual(await target.query('select a from d.t'), [{ a: 1 }])
})
