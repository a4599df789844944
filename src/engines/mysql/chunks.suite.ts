import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLog } from '#base/log'
import { createProgress } from '#base/progress'
import { DirectoryBase } from '../../../test/support/directory-base.ts'
import {
  checksums,
  requestOf,
  type StartServer,
} from '../../../test/support/mysql-family-harness.ts'
import { Scratch } from '../../../test/support/scratch.ts'
import { takeLogicalBase } from './base.ts'
import { parseFlavor } from './flavor.ts'
import { mysql } from './mysql.ts'
import { parseEndpoint } from './protocol/endpoint.ts'

const numbers = Array.from({ length: 10 }, (_, n) => `select ${n} as n`).join(' union all ')
const thousand = `(select a.n + 10 * b.n + 100 * c.n as n from (${numbers}) a, (${numbers}) b, (${numbers}) c) d`

/** Tables cut by keys of all kinds. */
export function chunkTests(start: StartServer): void {
  test('a table cut into many files by any kind of key comes back whole', async () => {
    await using server = await start()
    await server.query('create database d character set utf8mb4')
    const fill = `repeat('x', 300)`
    const tables: readonly (readonly [string, string, string])[] = [
      ['i', 'k int', 'n * 37 - 5000'],
      ['u', 'k bigint unsigned', '18446744073709551615 - n * 1000'],
      [
        's',
        'k varchar(40) character set utf8mb4 collate utf8mb4_unicode_ci',
        `concat('Ü''\\\\\\\\ ', left(sha2(n, 256), 32))`,
      ],
      ['l', 'k varchar(40) character set latin1', `concat('é', left(sha2(n, 256), 32))`],
      ['b', 'k varbinary(40)', `unhex(concat('00', left(sha2(n, 256), 32), '5c27'))`],
      ['t', 'k datetime(3)', `'2020-01-01 00:00:00' + interval n * 77 minute`],
      ['c', 'k decimal(20,3)', 'n * 1.5 - 100'],
    ]
    for (const [name, key, value] of tables) {
      await server.query(
        `create table d.${name} (${key} not null, n int not null, f varchar(400), primary key (k, n)) engine=innodb`,
      )
      await server.query(
        `insert into ${name} select ${value}, n, ${fill} from ${thousand}`,
        [],
        'd',
      )
      await server.query(`analyze table d.${name}`)
    }
    const signal = AbortSignal.timeout(600_000)
    const [row] = await server.query<{ v: string }>('select @@version as v')
    const source = {
      endpoint: parseEndpoint(server.url),
      flavor: parseFlavor(row?.v ?? ''),
      history: 'h',
    }
    using scratch = new Scratch('chunks')
    const files = new DirectoryBase(scratch.path)
    const options = { signal, progress: createProgress(''), log: silentLog, parallel: 3 }
    const facts = await takeLogicalBase(source, files, { ...options, chunkBytes: 40_000 })
    for (const [name] of tables) {
      const parts = files.whole.filter((path) => path.startsWith(`data/d/${name}/`))
      assert.ok(parts.length >= 3, `${name} was cut into ${parts.length}`)
    }
    assert.equal(facts.details['rows'], String(tables.length * 1000))
    await using target = await start()
    await mysql.restore(requestOf({ facts, files }, undefined, target.url))
    assert.deepEqual(await checksums(target), await checksums(server))
  })
}
