import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import pg from 'pg'
import { type ProtectNews, Redoubt } from '../../src/demo/redoubt.ts'
import { openPostgresEngine } from '../../src/demo/servers/postgres.ts'
import { Scratch } from '../support/scratch.ts'

const { signal } = new AbortController()

const isReady = ({ lastBase, lagMs }: ProtectNews) =>
  lastBase !== undefined && (lagMs ?? Infinity) < 1500

type Report = {
  readonly windows: readonly { readonly continuous: boolean; readonly bases: readonly string[] }[]
  readonly gaps: readonly { readonly said: string }[]
}

test('log that the source gave up is a gap that is shown, and a new base closes it', async () => {
  using scratch = new Scratch('lost-slot')
  const password = randomBytes(9).toString('base64url')
  const env = { REDOUBT_VAULT_PASSWORD: password, REDOUBT_DATA: scratch.join('state') }
  const redoubt = new Redoubt(env, signal)
  await using server = await openPostgresEngine(scratch.path).start(scratch.join('server'), signal)
  const vault = ['--vault', scratch.join('vault')]
  await redoubt.run(['vault', 'init', ...vault])
  const args = ['--source', server.url, ...vault, '--name', 'shop']
  let firstBase: string | undefined
  {
    await using protection = redoubt.protect(args)
    const news = await protection.until(isReady, { signal })
    firstBase = news.lastBase
  }
  const client = new pg.Client(server.url)
  client.on('error', () => undefined)
  await client.connect()
  // The slot goes while nobody looks, and with it the log: two checkpoints recycle what it kept.
  await client.query('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots')
  await client.query('CREATE TABLE filler AS SELECT generate_series(1, 400000) AS n')
  await client.query('SELECT pg_switch_wal()')
  await client.query('CHECKPOINT')
  await client.query('INSERT INTO filler SELECT generate_series(1, 400000)')
  await client.query('SELECT pg_switch_wal()')
  await client.query('CHECKPOINT')
  {
    await using protection = redoubt.protect(args)
    await protection.until((news) => isReady(news) && news.lastBase !== firstBase, { signal })
    const [report] = (await redoubt.run(['window', ...vault])) as Report[]
    assert.equal(report?.windows.length, 2, JSON.stringify(report))
    assert.equal(report?.gaps.length, 1, JSON.stringify(report?.gaps))
  }
  await client.end()
})
