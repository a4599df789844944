import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import type { ConflictPolicy } from '#change/apply'
import { ApplyTrial } from '../../../../test/support/postgres-apply.ts'
import { over, settings } from '../../../../test/support/postgres-follow.ts'
import { startPostgres } from '../../../../test/support/servers/postgres.ts'

const tables = `${over};
  create table t (id int primary key, email text unique, n int);
  create table f (id int primary key, email text unique, n int); alter table f replica identity full;
  create table s (id int primary key, big text, n int); alter table s alter big set storage external`

const rows = `insert into t values (1, 'a', 1), (2, 'b', 2); insert into f select * from t; insert into s values (1, repeat('x', 5000), 1)`

type Case = {
  readonly name: string
  /** Makes the target other than the source. */
  readonly before: string
  readonly change: string
  readonly said: RegExp
  readonly ignored: string
  readonly overwritten: string | RegExp
  readonly table?: string
}

// What the tables hold then, as `id email n`.
const cases: readonly Case[] = [
  {
    name: 'an insert meets a row of its key',
    before: `insert into t values (3, 'z', 9)`,
    change: `insert into t values (3, 'c', 3)`,
    said: /insert in "public"."t" the row \(id=3\): another row is in its way.*\(id\)=\(3\)/,
    ignored: '1 a 1, 2 b 2, 3 z 9',
    overwritten: '1 a 1, 2 b 2, 3 c 3',
  },
  {
    name: 'an insert meets a row of another unique key',
    before: `insert into t values (7, 'c', 9)`,
    change: `insert into t values (3, 'c', 3)`,
    said: /insert in "public"."t" the row \(id=3\): another row is in its way.*\(email\)=\(c\)/,
    ignored: '1 a 1, 2 b 2, 7 c 9',
    overwritten: '1 a 1, 2 b 2, 3 c 3',
  },
  {
    name: 'an update finds no row',
    before: `delete from t where id = 2`,
    change: `update t set n = 5 where id = 2`,
    said: /update in "public"."t" the row \(id=2\): the target has no such row/,
    ignored: '1 a 1',
    overwritten: '1 a 1, 2 b 5',
  },
  {
    name: 'an update of the key meets a row',
    before: `insert into t values (9, 'z', 9)`,
    change: `update t set id = 9 where id = 2`,
    said: /update in "public"."t" the row \(id=2\): another row is in its way.*\(id\)=\(9\)/,
    ignored: '1 a 1, 2 b 2, 9 z 9',
    overwritten: '1 a 1, 9 b 2',
  },
  {
    name: 'an update meets a row of another unique key',
    before: `insert into t values (9, 'z', 9)`,
    change: `update t set email = 'z' where id = 2`,
    said: /update in "public"."t" the row \(id=2\): another row is in its way.*\(email\)=\(z\)/,
    ignored: '1 a 1, 2 b 2, 9 z 9',
    overwritten: '1 a 1, 2 z 2',
  },
  {
    name: 'a delete finds no row',
    before: `delete from t where id = 2`,
    change: `delete from t where id = 2`,
    said: /delete in "public"."t" the row \(id=2\): the target has no such row/,
    ignored: '1 a 1',
    overwritten: '1 a 1',
  },
  {
    name: 'an update of a table with full images finds no row',
    before: `delete from f where id = 2`,
    change: `update f set n = 5 where id = 2`,
    said: /update in "public"."f" the row \(id=2\): the target has no such row/,
    ignored: '1 a 1',
    overwritten: '1 a 1, 2 b 5',
    table: 'f',
  },
  {
    name: 'an update that does not tell all of its row finds none',
    before: `delete from s`,
    change: `update s set n = 5`,
    said: /update in "public"."s" the row \(id=1\): the target has no such row/,
    ignored: '',
    overwritten: /the log does not hold all of it/,
    table: 's',
  },
]

const policies: readonly ConflictPolicy[] = ['stop', 'ignore', 'overwrite']

test('apply: each kind of conflict is stopped at, ignored or overwritten, and recorded', async () => {
  await using server = await startPostgres({ settings })
  const trial = await ApplyTrial.begin(server, tables)
  for (const [index, one] of cases.entries()) {
    // By itself a change goes another way than among others.
    await tryCase(trial, one, policies[index % 3] ?? 'stop', 0)
    for (const policy of policies) {
      await tryCase(trial, one, policy, 30)
    }
  }
})

/** With `among` rows of other changes around it in the same transaction. */
async function tryCase(
  trial: ApplyTrial,
  one: Case,
  policy: ConflictPolicy,
  among: number,
): Promise<void> {
  const said = `${one.name}, ${policy}, among ${among}`
  const { table = 't' } = one
  await trial.source(`truncate t, f, s; ${rows}`)
  await trial.target(`truncate t, f, s; drop schema if exists redoubt cascade`)
  const fresh = await trial.fromHere()
  await trial.target(`${rows}; ${one.before}`)
  const around = (from: number) =>
    `insert into ${table} (id, n) select i, i from generate_series(${from}, ${from + among - 1}) i`
  await trial.source(
    `begin; ${around(1000)}; ${one.change}; ${around(2000)}; update ${table} set n = n + 1 where id > 1000; delete from ${table} where id > 2010; commit`,
  )
  const outcome = run(fresh, policy)
  if (policy === 'stop' || (policy === 'overwrite' && one.overwritten instanceof RegExp)) {
    const wanted = policy === 'stop' ? one.said : one.overwritten
    await assert.rejects(
      outcome,
      (error) =>
        isFault(error, 'conflict') && wanted instanceof RegExp && wanted.test(error.message),
      said,
    )
    const [none] = await trial.target(`select count(*) as count from ${table} where id > 999`)
    assert.equal(none?.['count'], '0', said)
    return
  }
  const applied = await outcome
  assert.equal(applied.conflicts, 1, said)
  const columns = table === 's' ? `id || ' ' || n` : `id || ' ' || email || ' ' || n`
  const [left] = await trial.target(
    `select string_agg(${columns}, ', ' order by id) as rows from ${table} where id < 1000`,
  )
  assert.equal(left?.['rows'] ?? '', policy === 'ignore' ? one.ignored : one.overwritten, said)
  const counts = `select count(*) as count, sum(n) as sum from ${table} where id > 999`
  assert.deepEqual(await trial.target(counts), await trial.source(counts), said)
  const records = await trial.target('select * from redoubt.conflict')
  assert.equal(records.length, 1, said)
  const [record] = records
  assert.equal(record?.['table_name'], `"public"."${table}"`)
  assert.equal(record?.['change'], one.change.slice(0, 6))
  assert.equal(record?.['found'], /in its way/.test(one.said.source) ? 'there' : 'gone')
  const there = /in its way/.test(one.said.source)
  assert.equal(Array.isArray(record?.['target']), there, said)
  const isDelete = one.change.startsWith('delete')
  assert.equal(record?.['source_after'] === null, isDelete)
  assert.equal(record?.['done'], policy === 'ignore' || isDelete ? 'ignored' : 'overwritten')
}

async function run(trial: ApplyTrial, conflicts: ConflictPolicy): Promise<ApplyTrial> {
  await trial.run({ conflicts })
  return trial
}

test('apply: one of several lanes settles nothing before all that came earlier is committed', async () => {
  await using server = await startPostgres({ settings })
  const trial = await ApplyTrial.begin(server, tables)
  await trial.target(`insert into t values (1, 'a', 1)`)
  await trial.source(`insert into t values (1, 'b', 2)`)
  const options = { conflicts: 'ignore', lanes: 2 } as const
  await assert.rejects(trial.run(options), (error) => isFault(error, 'conflict'))
  assert.deepEqual(await trial.target('select from redoubt.conflict'), [])
  await trial.run({ ...options, alone: true })
  assert.equal(trial.conflicts, 1)
})
