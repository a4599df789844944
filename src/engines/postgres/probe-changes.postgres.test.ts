import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLog } from '#base/log'
import type { Finding } from '#change/finding'
import { startPostgres } from '../../../test/support/servers/postgres.ts'
import { postgres } from './postgres.ts'

const options = () => ({ signal: AbortSignal.timeout(600_000), log: silentLog })

async function probe(url: string): Promise<Finding[]> {
  await using engine = await postgres.open(url, options())
  return await engine.probe('sync-from', options())
}

const blocking = (findings: readonly Finding[]) =>
  findings.filter(({ severity }) => severity === 'blocks').map(({ code }) => code)

test('what changes need of a source is told with the statements that mend it', async () => {
  await using server = await startPostgres({
    settings: { max_replication_slots: '1', max_slot_wal_keep_size: '1GB' },
  })
  await server.query("create role mover login password 'x'")
  await server.query('create database shop')
  const url = server.urlOf('shop', 'mover', 'x')
  const found = await probe(url)
  const codes = ['wal-level', 'no-replication-right', 'no-publication-right', 'no-free-slot']
  assert.deepEqual(blocking(found), codes)
  assert.deepEqual(
    found.filter(({ severity }) => severity === 'notes').map(({ code }) => code),
    ['slot-limit'],
  )
  for (const code of codes) {
    const mend = found.find((one) => one.code === code)?.mend?.replace(/--.*/, '') ?? ''
    await server.query(mend)
  }
  // The settings of the command line win over those of the server's own file.
  await server.restart({ wal_level: 'logical', max_replication_slots: '2' })
  assert.deepEqual(blocking(await probe(url)), [])
})
