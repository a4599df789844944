import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { isFault } from '#base/faults'
import { silentLog } from '#base/log'
import { createProgress } from '#base/progress'
import { DirectoryBase } from '../../../test/support/directory-base.ts'
import { Scratch } from '../../../test/support/scratch.ts'
import { startMariadb } from '../../../test/support/servers/mariadb.ts'
import type { FamilyServer } from '../../../test/support/servers/mysql-family.ts'
import { takeLogicalBase } from './base.ts'
import { parseFlavor } from './flavor.ts'
import { parseEndpoint } from './protocol/endpoint.ts'

const changes: readonly (readonly [string, string])[] = [
  ['exchanged partition', 'alter table d.w exchange partition p with table d.x'],
  ['truncated table', 'truncate d.w'],
  ['swapped table', 'rename table d.w to d.old, d.x to d.w'],
]

let server: FamilyServer

before(async () => {
  server = await startMariadb()
})

after(async () => server[Symbol.asyncDispose]())

for (const [what, change] of changes) {
  test(`a base is refused when it met a ${what}`, async () => {
    await server.query(
      'drop database if exists d; create database d; create table d.x (id int primary key, v char(1)); create table d.a (id int primary key)',
    )
    await server.query(
      'create table d.w (id int primary key) partition by range (id) (partition p values less than (10))',
    )
    if (what === 'exchanged partition') await server.query('alter table d.x drop column v')
    await server.query('insert into d.w values (1); insert into d.a values (1)')
    using scratch = new Scratch('conflict')
    const signal = AbortSignal.timeout(600_000)
    const [row] = await server.query<{ v: string }>('select version() as v')
    const source = {
      endpoint: parseEndpoint(server.url),
      flavor: parseFlavor(row?.v ?? ''),
      history: 'h',
    }
    const files = new DirectoryBase(scratch.path)
    // One session copies one table after the other: the change comes with the first file.
    let changed = false
    const take = files.file.bind(files)
    files.file = async (path, entry, content) => {
      if (!changed) {
        changed = true
        await server.query(change)
      }
      await take(path, entry, content)
    }
    const options = { signal, progress: createProgress(''), log: silentLog, parallel: 1 }
    // Else the change would wait for the base, which waits for the change.
    const taking = takeLogicalBase(source, files, { ...options, pinless: true })
    const refused = await taking.catch((error: unknown) => error)
    assert.ok(isFault(refused, 'conflict'), String(refused))
    assert.equal(refused.recovery, 'retry')
  })
}
