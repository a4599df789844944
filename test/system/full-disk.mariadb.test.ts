import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Guarded, hear, untilGuarded, untilShipped } from '../support/guarded.ts'
import { Scratch } from '../support/scratch.ts'
import { startMariadb } from '../support/servers/mariadb.ts'
import { SmallDisk } from '../support/small-disk.ts'

for (const what of ['vault', 'journal'] as const) {
  test(`MariaDB: a full disk of the ${what} is said; with room again it goes on and nothing is lost`, async () => {
    await using server = await startMariadb()
    await server.query(
      'create database shop; create table shop.t (n int primary key, filler mediumtext)',
    )
    using scratch = new Scratch(`full-${what}`)
    const small = scratch.join('small')
    using disk = new SmallDisk(small, 24)
    const place = what === 'vault' ? { vault: `${small}/vault` } : { state: `${small}/state` }
    using guarded = await Guarded.begin('full', { scratch, ...place })
    await using protection = guarded.protect(server.url)
    await untilGuarded(protection)
    disk.fill()
    let rows = 0
    const insert = () =>
      server.query(
        'insert into t select ?, group_concat(md5(rand())) from seq_1_to_2000',
        [rows++],
        'shop',
      )
    await server.query('set global group_concat_max_len = 1000000')
    for (let n = 0; n < 20; n++) await insert()
    const news = await hear(protection, ({ said }) => /ENOSPC|disk full/.test(said))
    assert.match(news.said, new RegExp(small))
    disk.makeRoom()
    for (let n = 0; n < 5; n++) await insert()
    await untilShipped(protection)
    await protection[Symbol.asyncDispose]()
    assert.deepEqual((await guarded.window()).gaps, [])
    await guarded.done('vault', 'check', '--read-data', '--vault', guarded.vault)
    await using target = await startMariadb()
    await guarded.restored('--to', target.url)
    const sum = 'select count(*) as c, sum(crc32(filler)) as s from shop.t'
    assert.deepEqual(await target.query(sum), await server.query(sum))
  })
}
