import assert from 'node:assert/strict'
import { test } from 'node:test'
import pg from 'pg'
import { openPostgresEngine } from '../../src/demo/servers/postgres.ts'
import { Guarded, untilGuarded, untilNewBase } from '../support/guarded.ts'
import { dropSlots } from '../support/numbers.ts'

const { signal } = new AbortController()

test('log that the source gave up is a gap that is shown, and a new base closes it', async () => {
  using guarded = await Guarded.begin('lost-slot')
  const { scratch } = guarded
  await using server = await openPostgresEngine(scratch.path).start(scratch.join('server'), signal)
  let firstBase: string | undefined
  {
    await using protection = guarded.protect(server.url)
    firstBase = (await untilGuarded(protection)).lastBase
  }
  const client = new pg.Client(server.url)
  client.on('error', () => undefined)
  await client.connect()
  // The slot goes while nobody looks, and with it the log: two checkpoints recycle what it kept.
  for (const sql of dropSlots) await client.query(sql)
  await client.query('CREATE TABLE filler AS SELECT generate_series(1, 400000) AS n')
  await client.query('SELECT pg_switch_wal()')
  await client.query('CHECKPOINT')
  await client.query('INSERT INTO filler SELECT generate_series(1, 400000)')
  await client.query('SELECT pg_switch_wal()')
  await client.query('CHECKPOINT')
  {
    await using protection = guarded.protect(server.url)
    await untilNewBase(protection, firstBase)
    const report = await guarded.window()
    assert.equal(report.windows.length, 2, JSON.stringify(report))
    assert.equal(report.gaps.length, 1, JSON.stringify(report.gaps))
  }
  await client.end()
})
