import { createHash } from 'node:crypto'
import { appendFileSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { RetryPolicy } from '#base/retry'
import { openStorage } from '#storage/all'
import { type HttpFault, HttpFaultProxy } from '../support/http-fault-proxy.ts'
import { Ceph } from '../support/servers/ceph.ts'
import { home } from '../support/servers/services.ts'

/**
 * A stream of 5 GB goes into a real bucket in parts and comes back, while every seventh request
 * goes wrong: answers of 503, resets before and after the work was done, cut answers. One JSON line
 * is added to bench/results/.
 */
const sizeMb = Number(process.env['REDOUBT_SOAK_S3_MB'] ?? 5120)
const peakMbMax = 512
const retry: RetryPolicy = { triesMax: 20, firstDelayMs: 20, delayMaxMs: 500 }
const faults: readonly HttpFault[] = [
  { kind: 'answer', status: 503 },
  { kind: 'reset' },
  { kind: 'reset', delivered: true },
  { kind: 'answer', status: 500, delivered: true },
  { kind: 'cut', bodyBytes: 50_000_000, how: 'reset' },
  { kind: 'cut-upload', bodyBytes: 3_000_000 },
  { kind: 'flip', body: 'request', byte: 9_999 },
]

await using ceph = await Ceph.start({ store: 'bluestore' })
await using proxy = await HttpFaultProxy.start({ port: ceph.port })
const bucket = await ceph.createBucket()
const url = `s3://${bucket}/soak?endpoint=${proxy.endpoint}&region=${ceph.region}`
const credentials = { accessKeyId: ceph.accessKey, secretAccessKey: ceph.secretKey }
await using storage = await openStorage(url, { credentials, retry })
let failed = 0
proxy.rule = ({ index }) => (index % 7 === 4 ? faults[failed++ % faults.length] : undefined)

const started = performance.now()
const sent = createHash('sha256')
async function* source() {
  const block = Buffer.alloc(1024 * 1024)
  for (let i = 0; i < sizeMb; i++) {
    block.fill(i & 0xff)
    block.writeUInt32LE(i, 0)
    sent.update(block)
    yield block
  }
}
await storage.putStream('large', source())
const putMs = performance.now() - started
const received = createHash('sha256')
for await (const chunk of storage.stream('large')) received.update(chunk)
const getMs = performance.now() - started - putMs

const equal = sent.digest('hex') === received.digest('hex')
const peakMb = Math.round(process.resourceUsage().maxRSS / 1024)
const result = {
  trial: 's3-stream',
  time: new Date().toISOString(),
  sizeMb,
  putMs: Math.round(putMs),
  getMs: Math.round(getMs),
  requests: proxy.seen.length,
  failed,
  peakMb,
  equal,
}
const folder = join(home, 'bench/results')
mkdirSync(folder, { recursive: true })
appendFileSync(join(folder, 's3-stream.jsonl'), `${JSON.stringify(result)}\n`)
console.log(JSON.stringify(result))
if (!equal || failed === 0 || peakMb > peakMbMax) process.exitCode = 1
