import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Dice } from '../../../../test/support/dice.ts'
import { Follow } from '../../../../test/support/mysql-apply.ts'
import { makeEverything } from '../../../../test/support/mysql-every-type.ts'
import { checksums, type StartServer } from '../../../../test/support/mysql-family-harness.ts'
import { positionOf } from '../../../../test/support/mysql-mirror.ts'
import type { FamilyServer } from '../../../../test/support/servers/mysql-family.ts'

/** Changes of one live server, read from its log and applied to another. */
export function applyTests(start: StartServer): void {
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
    assert.ok((await compare(source, target, ['types.old_kind', 'types.history'])) > 15)
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

async function randomLoad(server: FamilyServer): Promise<void> {
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
  for (let round = 0; round < 150; round++) {
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
    ['insert ignore into child values (?, ?)', [id, id % 40]],
    ['delete from parent where id = ?', [id % 40]],
    ['update ignore parent set id = id + 1 where id = ?', [id % 40]],
  ]
  return dice.pick(choices)
}
