import assert from 'node:assert/strict'
import { readFileSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { Capture, closedFile } from '../../../test/support/mysql-family-harness.ts'
import { startMariadb } from '../../../test/support/servers/mariadb.ts'
import { logTests } from './log.suite.ts'

logTests(startMariadb)

test('a file that ends within an event, as a kill leaves it, is complete without it: reading goes on in the next', async () => {
  await using server = await startMariadb({ settings: { 'sync-binlog': '1' } })
  await server.query('create database d; create table d.t (id int primary key)')
  await using first = await Capture.start(server.url)
  await server.query('insert into d.t values (1)')
  await first.caughtUp(server)
  await first.stop()
  const { archive } = first
  const after = archive.durable()
  assert.ok(after)
  await server.query('insert into d.t values (2)')
  const [name = ''] = archive.names.slice(-1)
  await server.kill9()
  const file = join(server.dataDir, name)
  const cutBytes = 9
  truncateSync(file, readFileSync(file).length - cutBytes)
  await server.start()
  await server.query('insert into d.t values (3)')
  await using second = await Capture.start(server.url, { archive, after })
  await second.caughtUp(server)
  // The event that was cut is that of the commit: 31 bytes, checksum included.
  const whole = closedFile(readFileSync(file)).subarray(0, cutBytes - 31)
  assert.ok(archive.bytes(name).equals(whole), `${name} differs`)
  assert.ok(archive.names.length > archive.names.indexOf(name) + 1, archive.names.join())
  // Two to make the table, and two of three rows.
  assert.equal(archive.commits.length, 4)
})
