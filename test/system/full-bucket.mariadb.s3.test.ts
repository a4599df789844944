import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Guarded, hear, untilGuarded, untilShipped } from '../support/guarded.ts'
import { HttpFaultProxy } from '../support/http-fault-proxy.ts'
import { createProbedBucket } from '../support/probed-bucket.ts'
import { startMariadb } from '../support/servers/mariadb.ts'

/** As Ceph's gateway answers when the quota of a user or a bucket is used up. */
const quotaExceeded = {
  kind: 'answer',
  status: 403,
  body: '<?xml version="1.0"?><Error><Code>QuotaExceeded</Code><Message>no room</Message></Error>',
} as const

test('a full bucket is said; with room again protection goes on by itself and nothing is lost', async () => {
  const { ceph, bucket } = await createProbedBucket()
  await using proxy = await HttpFaultProxy.start({ port: ceph.port })
  await using server = await startMariadb()
  await server.query('create database shop; create table shop.t (n int primary key)')
  const vault = `s3://${bucket}/vault?endpoint=${proxy.endpoint}&region=${ceph.region}&path-style=1`
  using guarded = await Guarded.begin('full-bucket', { vault, env: ceph.env })
  const protection = guarded.protect(server.url)
  await using _ = protection
  await untilGuarded(protection)
  let next = 0
  const insert = () => server.query('insert into shop.t values (?)', [next++])
  await insert()
  proxy.rule = ({ method }) => (/^(PUT|POST)$/.test(method) ? quotaExceeded : undefined)
  for (let n = 0; n < 10; n++) await insert()
  const news = await hear(protection, ({ said }) => /QuotaExceeded|full|no room/.test(said))
  assert.match(news.said, /ship to/)
  // The commits go on, and the lag tells that the vault does not have them.
  await hear(protection, ({ lagMs = 0 }) => lagMs > 4000)
  for (let n = 0; n < 10; n++) await insert()
  proxy.rule = () => undefined
  await insert()
  await untilShipped(protection)
  await protection[Symbol.asyncDispose]()
  const report = await guarded.window()
  assert.deepEqual(report.gaps, [])
  assert.equal(report.windows.length, 1)
  await using target = await startMariadb()
  await guarded.restored('--to', target.url)
  const rows = await target.query<{ n: number }>('select n from shop.t order by n')
  assert.deepEqual(
    rows.map(({ n }) => n),
    Array.from({ length: next }, (_, n) => n),
  )
})
