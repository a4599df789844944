import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Transaction } from '#change/batch'
import type { StartServer } from '../../../../test/support/mysql-family-harness.ts'
import { makeEverything } from '../../../../test/support/mysql-every-type.ts'
import { imagesOf, Mirror, positionOf, readAll } from '../../../../test/support/mysql-mirror.ts'

/** The decoding of a live server's log. */
export function changesTests(start: StartServer): void {
  test('rows, borders and positions of transactions come as they were committed', async () => {
    await using server = await start()
    await server.query('create database d')
    const after = await positionOf(server)
    await server.query(
      `create table d.t (id int primary key, v varchar(100), n bigint);
       insert into d.t values (1, 'one', null), (2, '', -5);
       begin; update d.t set v = 'eins' where id = 1; delete from d.t where id = 2; commit`,
    )
    const transactions = (await readAll(server, { after })).flatMap((one) => one.transactions)
    assert.deepEqual(transactions.map(shown), [
      ['statement'],
      ['insert 1,one,NULL 2,,-5'],
      ['update 1,one,NULL 1,eins,NULL', 'delete 2,,-5'],
    ])
  })

  test('values of every type are those that SQL prints', async () => {
    await using server = await start()
    const after = await positionOf(server)
    await makeEverything(server)
    const mirror = new Mirror()
    for (const batch of await readAll(server, { after })) mirror.take(batch)
    const count = await mirror.compare(server)
    assert.ok(count > 30, `${count} rows`)
  })
}

function shown(one: Transaction): string[] {
  assert.ok(one.begins && one.ends && one.position)
  return one.changes.map((change) => {
    if (change.kind === 'statement' || change.kind === 'truncate') return change.kind
    const images = imagesOf(change).map((image) => image.map((cell) => cell ?? 'NULL').join())
    return [change.kind, ...images].join(' ')
  })
}
