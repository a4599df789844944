import assert from 'node:assert/strict'
import { test } from 'node:test'
import { seededRandom } from '#base/random'
import { openPostgresEngine } from '../../src/demo/servers/postgres.ts'
import { archiverKills } from '../support/archiver-kills.ts'
import { type HttpFault, HttpFaultProxy } from '../support/http-fault-proxy.ts'
import { createProbedBucket } from '../support/probed-bucket.ts'
import { Scratch } from '../support/scratch.ts'

const faults: readonly HttpFault[] = [
  { kind: 'answer', status: 503 },
  { kind: 'reset' },
  { kind: 'reset', delivered: true },
  { kind: 'answer', status: 500, delivered: true },
  { kind: 'cut', bodyBytes: 100, how: 'reset' },
]

test('a vault in S3 whose every ninth request fails loses nothing, with an archiver killed once', async () => {
  // What the store can do was found out in peace: of a dozen racing puts every ninth would fail, each time.
  const { ceph, bucket } = await createProbedBucket()
  await using proxy = await HttpFaultProxy.start({ port: ceph.port })
  let failed = 0
  proxy.rule = ({ index }) => (index % 9 === 5 ? faults[failed++ % faults.length] : undefined)
  using scratch = new Scratch('s3-bin')
  const trial = await archiverKills({
    engine: openPostgresEngine(scratch.path),
    kills: 1,
    random: seededRandom(3),
    vault: `s3://${bucket}/vault?endpoint=${proxy.endpoint}&region=${ceph.region}&path-style=1`,
    env: ceph.env,
  })
  assert.ok(failed > 10, `${failed} requests failed`)
  // One commit more may have happened that nobody saw return.
  assert.ok(trial.restored >= trial.seen, JSON.stringify(trial))
  assert.ok(trial.restored <= trial.seen + 1, JSON.stringify(trial))
  assert.deepEqual(
    { ...trial, seen: 0, restored: 0 },
    { kills: 1, seen: 0, restored: 0, differences: 0, windows: 1, gaps: 0, checkOk: true },
  )
})
