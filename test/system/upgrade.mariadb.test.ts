import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Guarded, untilGuarded, untilNewBase, untilShipped } from '../support/guarded.ts'
import { assertMoments } from '../support/moment-trials.ts'
import { familyNumbers, makeNumbers, ServerLandings } from '../support/numbers.ts'
import { startMariadb } from '../support/servers/mariadb.ts'
import type { FamilyServer } from '../support/servers/mysql-family.ts'

/** From 10.11 to the version of this run: in the plain one that is a restart of the same, with `--all` 11.8. */
test('a MariaDB that is upgraded in place stays protected, and comes back as of before and after', async () => {
  const settings = { 'server-id': '77' }
  await using old = await startMariadb({ version: '10.11', settings })
  const numbers = await makeNumbers(old)
  using guarded = await Guarded.begin('upgrade')
  const protection = guarded.protect(old.url)
  await using _ = protection
  const { lastBase: firstBase } = await untilGuarded(protection)
  await numbers.insert(1, 2)
  const before = await numbers.momentAfterAll()
  await numbers.insert(3)
  await old.stop()
  const { dataDir, port } = old
  await using upgraded = await startMariadb({ settings, dataDir, port })
  if (upgraded.version !== old.version) upgraded.tool('mariadb-upgrade', ...upgraded.clientArgs)
  await upgraded.query('insert into shop.t values (4)')
  if (upgraded.version !== old.version) await untilNewBase(protection, firstBase)
  await upgraded.query('insert into shop.t values (5)')
  const after = await familyNumbers(upgraded).momentAfterAll()
  await upgraded.query('delete from shop.t')
  await untilShipped(protection)
  await protection[Symbol.asyncDispose]()
  const report = await guarded.window()
  assert.ok(report.source.version.startsWith(upgraded.version), report.source.version)
  assert.deepEqual(report.gaps, [])
  assert.equal(report.windows.length, 1, JSON.stringify(report))
  await using landings = await ServerLandings.begin(guarded)
  await assertMoments(landings, [
    [before, [1, 2]],
    [after, [1, 2, 3, 4, 5]],
    ['latest', []],
  ])
})

/** The server tells whatever version it is told to: no other programs are needed to be upgraded. */
test('a server that is of another version when protect is started again gets a base at once, and else none', async () => {
  const settings = { 'server-id': '77' }
  await using old = await startMariadb({ settings })
  await old.query('create database shop; create table shop.t (n int primary key)')
  using guarded = await Guarded.begin('upgraded-meanwhile')
  const firstBase = await baseOfOneRun(guarded, old)
  await old.query('insert into shop.t values (1)')
  assert.equal(await baseOfOneRun(guarded, old), firstBase)
  await old.stop()
  const { dataDir, port } = old
  const version = old.version.replace(/^(\d+\.\d+).*/, '$1.99-MariaDB')
  const upgraded = { settings: { ...settings, version }, dataDir, port }
  await using server = await startMariadb(upgraded)
  {
    await using protection = guarded.protect(server.url)
    await untilNewBase(protection, firstBase)
  }
  const report = await guarded.window()
  assert.match(report.source.version, /\.99/)
  assert.equal(report.bases.length, 2)
  assert.deepEqual(report.gaps, [])
})

async function baseOfOneRun(guarded: Guarded, server: FamilyServer): Promise<string | undefined> {
  await using protection = guarded.protect(server.url)
  const { lastBase } = await untilGuarded(protection)
  return lastBase
}
