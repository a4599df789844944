import assert from 'node:assert/strict'
import { test } from 'node:test'
import { refused } from '../support/command.ts'
import { Guarded, untilGuarded, untilNewBase, untilShipped } from '../support/guarded.ts'
import { startMariadb } from '../support/servers/mariadb.ts'
import type { FamilyServer } from '../support/servers/mysql-family.ts'

test('log that MariaDB purged unread is a gap: moments in it are refused, both its ends come back', async () => {
  await using server = await startMariadb()
  await server.query('create database shop; create table shop.t (n int primary key)')
  using guarded = await Guarded.begin('moments')
  const insert = (n: number) => server.query('insert into shop.t values (?)', [n])
  let firstBase: string | undefined
  {
    await using protection = guarded.protect(server.url)
    firstBase = (await untilGuarded(protection)).lastBase
    await insert(1)
    await untilShipped(protection)
  }
  await nextSecond(server)
  await insert(2)
  const inside = await momentAfterAll(server)
  await server.query('flush binary logs; flush binary logs')
  const files = await server.query<{ Log_name: string }>('show binary logs')
  await server.query(`purge binary logs to '${files.at(-1)?.Log_name}'`)
  await insert(3)
  {
    await using protection = guarded.protect(server.url)
    await untilNewBase(protection, firstBase)
    await insert(4)
    await untilShipped(protection)
  }
  const report = await guarded.window()
  assert.equal(report.gaps.length, 1, JSON.stringify(report))
  assert.match(String(report.gaps[0]?.said), /binary log|binlog/)
  const [before, after] = report.windows
  assert.ok(before?.continuous && after?.continuous, JSON.stringify(report))
  await using target = await startMariadb()
  const restoreAt = (at: string) => guarded.restore('--to', target.url, '--force', '--at', at)
  const ends = [timeOf(before.toUs), timeOf(after.fromUs)]
  const error = refused(await restoreAt(inside), inside, 1, /lies in a gap of the log/)
  assert.equal(error.code, 'gap')
  for (const end of ends) assert.ok(error.hint?.includes(end), `${end}: ${error.hint}`)
  refused(await restoreAt('2001-01-01'), 'before all', 5, /the oldest moment .* is 20/)
  refused(await restoreAt('2999-01-01'), 'in the future', 5, /the newest moment .* is 20/)
  assert.deepEqual(await target.query(`show databases like 'shop'`), [])
  for (const [at, rows] of [
    [ends[0], [1]],
    [ends[1], [1, 2, 3]],
    ['latest', [1, 2, 3, 4]],
  ] as const) {
    const ran = await restoreAt(String(at))
    assert.equal(ran.code, 0, ran.said)
    const found = await target.query<{ n: number }>('select n from shop.t order by n')
    assert.deepEqual(
      found.map(({ n }) => n),
      rows,
      String(at),
    )
  }
})

function timeOf(us: string): string {
  return `${new Date(Number(BigInt(us) / 1000n)).toISOString().slice(0, -1)}${us.slice(-3)}Z`
}

/** A time behind all commits so far, in a second of its own. */
async function momentAfterAll(server: FamilyServer): Promise<string> {
  await nextSecond(server)
  const [row] = await server.query<{ at: string }>(
    `select date_format(utc_timestamp(), '%Y-%m-%dT%H:%i:%sZ') as at`,
  )
  await nextSecond(server)
  return row?.at ?? ''
}

async function nextSecond(server: FamilyServer): Promise<void> {
  await server.query('do sleep(1.1 - mod(unix_timestamp(now(6)), 1))')
}
