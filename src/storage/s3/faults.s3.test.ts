import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import type { RetryPolicy } from '#base/retry'
import { FaultProxy } from '../../../test/support/fault-proxy.ts'
import { type HttpFault, HttpFaultProxy } from '../../../test/support/http-fault-proxy.ts'
import { createProbedBucket } from '../../../test/support/probed-bucket.ts'
import { sharedCeph } from '../../../test/support/servers/ceph.ts'
import type { Storage } from '../storage.ts'
import { chunks, collect, pattern, readAll, rejects, storageSuite } from '../storage.suite.ts'
import { withRetry } from '../wrap/retry.ts'
import { openS3Storage, type S3Options } from './s3.ts'

const fast: RetryPolicy = { triesMax: 40, firstDelayMs: 1, delayMaxMs: 10 }
const once: RetryPolicy = { ...fast, triesMax: 1 }
const streamBytes = 11_000_003

/** A store of its own behind a proxy; the store goes first when the scope ends. */
async function behindProxy(options: S3Options = {}) {
  const { ceph, bucket } = await createProbedBucket()
  const proxy = await HttpFaultProxy.start({ port: ceph.port })
  const storage = await openAt(proxy.endpoint, bucket, options)
  const dispose = async () => {
    await storage[Symbol.asyncDispose]()
    await proxy[Symbol.asyncDispose]()
  }
  return { storage, proxy, bucket, [Symbol.asyncDispose]: dispose }
}

async function openAt(endpoint: string, bucket: string, options: S3Options): Promise<Storage> {
  const ceph = await sharedCeph()
  const credentials = { accessKeyId: ceph.accessKey, secretAccessKey: ceph.secretKey }
  const url = `s3://${bucket}/vault?endpoint=${endpoint}&region=${ceph.region}&part-size=5MiB`
  return openS3Storage(url, { credentials, retry: once, ...options })
}

/** What a login page of a network answers to everything. */
const portal: HttpFault = {
  kind: 'answer',
  status: 200,
  body: '<html><body>please log in</body></html>',
  type: 'text/html',
}

/** Every third request goes wrong, each time in another way. */
function hostile(): (request: { index: number; method: string }) => HttpFault | undefined {
  const kinds: readonly HttpFault[] = [
    { kind: 'answer', status: 503, body: errorBody('SlowDown') },
    { kind: 'reset' },
    { kind: 'answer', status: 503, body: '<html>down for repair</html>', type: 'text/html' },
    { kind: 'cut', bodyBytes: 100, how: 'end' },
    { kind: 'reset', delivered: true },
    { kind: 'answer', status: 500, body: errorBody('InternalError'), delivered: true },
    { kind: 'cut-upload', bodyBytes: 1000 },
    { kind: 'flip', body: 'request', byte: 3 },
    { kind: 'cut', bodyBytes: 70_000, how: 'reset' },
    { kind: 'answer', status: 502, body: '' },
    portal,
    { kind: 'answer', status: 200, body: errorBody('InternalError') },
  ]
  let turns = 0
  return ({ index, method }) => {
    const fault = index % 3 === 1 ? kinds[turns++ % kinds.length] : undefined
    // Nothing in the answer to a DELETE could tell the store from a portal.
    return method === 'DELETE' && fault === portal ? undefined : fault
  }
}

const errorBody = (code: string) => `<?xml version="1.0"?><Error><Code>${code}</Code></Error>`

storageSuite(
  's3 behind a hostile network, with retry',
  async () => {
    const { storage, proxy } = await behindProxy({ retry: fast })
    proxy.rule = hostile()
    return closing(withRetry(storage, fast), proxy)
  },
  { streamBytes },
)

storageSuite(
  's3 behind a slow network',
  async () => {
    const { ceph, bucket } = await createProbedBucket()
    const proxy = await FaultProxy.start({ port: ceph.port })
    proxy.set({ delayMs: 5, jitterMs: 5 })
    return closing(await openAt(`http://127.0.0.1:${proxy.port}`, bucket, {}), proxy)
  },
  { streamBytes },
)

/** The store with the proxy's end at its own. */
function closing(storage: Storage, proxy: AsyncDisposable): Storage {
  const { url, can } = storage
  return {
    url,
    can,
    put: (...args) => storage.put(...args),
    putStream: (...args) => storage.putStream(...args),
    get: (...args) => storage.get(...args),
    stream: (...args) => storage.stream(...args),
    stat: (...args) => storage.stat(...args),
    list: (...args) => storage.list(...args),
    delete: (...args) => storage.delete(...args),
    async [Symbol.asyncDispose]() {
      await storage[Symbol.asyncDispose]()
      await proxy[Symbol.asyncDispose]()
    },
  }
}

test('a failed listing never looks like an empty or a shorter one', async () => {
  await using place = await behindProxy()
  const { storage, proxy } = place
  for (let i = 0; i < 5; i++) await storage.put(`k/${i}`, pattern(i))
  const html = { body: '<html><body>captive portal</body></html>', type: 'text/html' }
  const begun =
    '<?xml version="1.0"?><ListBucketResult><Name>b</Name><Contents><Key>vault/k/0</Key>'
  const cutShort =
    '<ListBucketResult><Name>b</Name><IsTruncated>true</IsTruncated></ListBucketResult>'
  const faults: readonly HttpFault[] = [
    { kind: 'answer', status: 200 },
    { kind: 'answer', status: 200, ...html },
    { kind: 'answer', status: 200, body: begun },
    { kind: 'answer', status: 200, body: cutShort },
    { kind: 'answer', status: 200, body: '<ListBucketResult/>' },
    { kind: 'answer', status: 204 },
    { kind: 'answer', status: 404, ...html },
    { kind: 'answer', status: 500 },
    { kind: 'answer', status: 503, ...html },
    { kind: 'cut', bodyBytes: 400, how: 'end' },
    { kind: 'cut', bodyBytes: 400, how: 'reset' },
    { kind: 'cut', bodyBytes: 0, how: 'end' },
    { kind: 'reset' },
  ]
  for (const fault of faults) {
    proxy.rule = () => fault
    await assert.rejects(collect(storage.list('')), (error) => {
      assert.ok(isFault(error), `${JSON.stringify(fault)}: ${String(error)}`)
      return true
    })
  }
  proxy.rule = () => undefined
  assert.equal((await collect(storage.list(''))).length, 5)
})

test('a login page’s answers are never taken for the store’s', async () => {
  await using place = await behindProxy()
  const { storage, proxy } = place
  await storage.put('a', pattern(300_000))
  proxy.rule = () => portal
  await rejects(storage.put('b', pattern(10)), 'unreachable')
  await rejects(storage.putStream('b', chunks(pattern(10), 3)), 'unreachable')
  await rejects(storage.putStream('b', chunks(pattern(streamBytes), 65_536)), 'unreachable')
  await rejects(storage.get('a'), 'unreachable')
  await assert.rejects(storage.get('a', { start: 1, end: 5 }), isFault)
  await rejects(readAll(storage.stream('a')), 'unreachable')
  await rejects(storage.stat('a'), 'unreachable')
  await rejects(collect(storage.list('')), 'unreachable')
  const endpoint = proxy.endpoint
  await rejects(openAt(endpoint, 'any', {}), 'unreachable')
  proxy.rule = () => undefined
  assert.deepEqual(
    (await collect(storage.list(''))).map((info) => info.key),
    ['a'],
  )
})

test('a short answer is an error, and retry goes on where it broke', async () => {
  await using place = await behindProxy()
  const { storage, proxy } = place
  const bytes = pattern(3_000_000)
  await storage.put('a', bytes)
  for (const how of ['end', 'reset'] as const) {
    proxy.rule = () => ({ kind: 'cut', bodyBytes: 1_000_000, how })
    await rejects(storage.get('a'), 'unreachable')
    await rejects(storage.get('a', { start: 5, end: 2_000_000 }), 'unreachable')
    await rejects(readAll(storage.stream('a', { start: 1 })), 'unreachable')
    proxy.seen.length = 0
    // Three cuts of a megabyte each, and then the rest.
    const read = await readAll(withRetry(storage, fast).stream('a'))
    assert.ok(read.equals(bytes))
    const starts = proxy.seen.map(({ headers }) => headers.range ?? 'bytes=0-')
    assert.equal(new Set(starts).size, starts.length, 'no byte is asked for twice')
  }
})

test('bytes turned over on their way up are refused by the store', async () => {
  await using place = await behindProxy()
  const { storage, proxy } = place
  await storage.put('a', pattern(1000))
  proxy.rule = () => ({ kind: 'flip', body: 'request', byte: 500 })
  await rejects(storage.put('a', pattern(2000)), 'unreachable')
  await rejects(storage.putStream('a', chunks(pattern(streamBytes), 65_536)), 'unreachable')
  proxy.rule = () => undefined
  assert.deepEqual(await storage.get('a'), pattern(1000))
})

test('an upload whose last answer is lost is found to be there', async () => {
  for (const ifAbsent of [false, true]) {
    await using place = await behindProxy({ retry: fast })
    const { storage, proxy } = place
    let lost = 0
    proxy.rule = ({ method, path }) => {
      const completes = method === 'POST' && path.includes('uploadId=')
      const small = method === 'PUT' && !path.includes('uploadId=')
      return (completes || small) && lost++ === 0 ? { kind: 'reset', delivered: true } : undefined
    }
    const bytes = pattern(streamBytes)
    await storage.putStream('large', chunks(bytes, 65_536), { ifAbsent })
    assert.equal(lost, 2, 'the first answer was lost')
    assert.ok(bytes.equals(await storage.get('large')))
    lost = 0
    await storage.putStream('small', chunks(pattern(10), 3), { ifAbsent })
    assert.equal(lost, 2)
    lost = 0
    await withRetry(storage, fast).put('whole', pattern(10), { ifAbsent })
    assert.equal(lost, 2)
    if (!ifAbsent) continue
    // The same doubt, but the object there is another's: that must not pass for ours.
    for (const size of [10, streamBytes]) {
      lost = 0
      proxy.rule = ({ method, path }) => {
        const last = method === (size > 10 ? 'POST' : 'PUT') && path.includes('small')
        const ends = size > 10 ? path.includes('uploadId=') : true
        return last && ends && lost++ === 0 ? { kind: 'reset' } : undefined
      }
      const others = storage.putStream('small', chunks(pattern(size).fill(9), 3_000_000), {
        ifAbsent,
      })
      await rejects(others, 'exists')
      assert.ok(lost > 1)
    }
  }
})

test('a store that forgets an upload once it is complete is not asked in vain', async () => {
  const answers = [
    { ifAbsent: false, status: 404, code: 'NoSuchUpload' },
    { ifAbsent: true, status: 404, code: 'NoSuchUpload' },
    { ifAbsent: true, status: 412, code: 'PreconditionFailed' },
  ]
  for (const { ifAbsent, status, code } of answers) {
    await using place = await behindProxy({ retry: { ...fast, triesMax: 4 } })
    const { storage, proxy } = place
    let completes = 0
    proxy.rule = ({ method, path }) => {
      if (method !== 'POST' || !path.includes('uploadId=')) return undefined
      if (completes++ === 0) return { kind: 'reset', delivered: true }
      return { kind: 'answer', status, body: errorBody(code) }
    }
    const bytes = pattern(streamBytes)
    await storage.putStream('large', chunks(bytes, 65_536), { ifAbsent })
    assert.equal(completes, 2)
    assert.ok(bytes.equals(await storage.get('large')))
    // The same answers, but to an upload that did not arrive.
    proxy.rule = ({ method, path }) =>
      method === 'POST' && path.includes('uploadId=')
        ? { kind: 'answer', status, body: errorBody(code) }
        : undefined
    const other = storage.putStream('large', chunks(bytes.fill(1), 65_536), { ifAbsent })
    await rejects(other, status === 412 ? 'exists' : 'unreachable')
  }
})

test('a stalled answer and a silent store end in time', async () => {
  // Long enough for a store that is merely slow, to which each is opened.
  const timeouts = { connectMs: 1500, idleMs: 1500 }
  await using place = await behindProxy()
  const { proxy, bucket } = place
  await place.storage.put('a', pattern(300_000))
  await using storage = await openAt(proxy.endpoint, bucket, { timeouts })
  proxy.rule = () => ({ kind: 'stall', bodyBytes: 100_000 })
  await rejects(storage.get('a'), 'timeout')
  await rejects(readAll(storage.stream('a')), 'timeout')
  proxy.rule = () => ({ kind: 'stall', bodyBytes: 10 })
  await rejects(collect(storage.list('')), 'timeout')
  const ceph = await sharedCeph()
  await using silent = await FaultProxy.start({ port: ceph.port })
  silent.set({ silent: ['up', 'down'] })
  await rejects(openAt(`http://127.0.0.1:${silent.port}`, 'any', { timeouts }), 'timeout')
  silent.set({ silent: ['down'] })
  await rejects(openAt(`http://127.0.0.1:${silent.port}`, 'any', { timeouts }), 'timeout')
  silent.set({ refuse: true })
  await rejects(openAt(`http://127.0.0.1:${silent.port}`, 'any', { timeouts }), 'unreachable')
})

test('an abort ends calls in mid-flight', async () => {
  await using place = await behindProxy()
  const { storage, proxy } = place
  await storage.put('a', pattern(3_000_000))
  const reason = new Error('enough')
  proxy.rule = ({ method }) =>
    method === 'GET' ? { kind: 'stall', bodyBytes: 100_000 } : undefined
  for (const read of [
    (signal: AbortSignal) => storage.get('a', { signal }),
    (signal: AbortSignal) => readAll(storage.stream('a', { signal })),
  ]) {
    const abort = new AbortController()
    const reading = read(abort.signal)
    setTimeout(() => abort.abort(reason), 50)
    await assert.rejects(reading, (error) => error === reason)
  }
  proxy.rule = () => undefined
  const abort = new AbortController()
  async function* endless() {
    for (let i = 0; ; i++) {
      if (i === 200) abort.abort(reason)
      yield pattern(65_536)
    }
  }
  const put = storage.putStream('b', endless(), { signal: abort.signal })
  await assert.rejects(put, (error) => error === reason)
  assert.equal(await storage.stat('b'), undefined)
  const aborted = proxy.seen.filter(({ method, path }) => {
    return method === 'DELETE' && path.includes('uploadId=')
  })
  assert.equal(aborted.length, 1, 'the upload is taken back')
})

test('a gateway that dies and comes back is only a delay', async () => {
  const ceph = await sharedCeph()
  const endpoint = ceph.endpoint
  const policy = { triesMax: 100, firstDelayMs: 20, delayMaxMs: 50 }
  const bucket = await ceph.createBucket()
  await using inner = await openAt(endpoint, bucket, { retry: policy })
  const storage = withRetry(inner, policy)
  const keys = Array.from({ length: 200 }, (_, i) => `k/${i}`)
  const writing = (async () => {
    for (const key of keys) await storage.put(key, pattern(10_000))
    await storage.putStream('large', chunks(pattern(streamBytes), 65_536))
  })()
  await ceph.killGateway()
  await Promise.all([writing, ceph.startGateway()])
  assert.equal((await collect(storage.list('k/'))).length, 200)
  assert.ok(pattern(streamBytes).equals(await storage.get('large')))
})

test('connections are bounded, however many calls there are', async () => {
  const ceph = await sharedCeph()
  await using proxy = await FaultProxy.start({ port: ceph.port })
  const endpoint = `http://127.0.0.1:${proxy.port}`
  await using storage = await openAt(endpoint, await ceph.createBucket(), {})
  proxy.set({ delayMs: 10 })
  const keys = Array.from({ length: 400 }, (_, i) => `k/${i}`)
  await Promise.all(keys.map((key) => storage.put(key, pattern(100))))
  await Promise.all(keys.map((key) => storage.get(key)))
  assert.ok(proxy.connections <= 128, `${proxy.connections} connections`)
})

test('a session token is signed and sent', async () => {
  const ceph = await sharedCeph()
  await using proxy = await HttpFaultProxy.start({ port: ceph.port })
  const credentials = {
    accessKeyId: ceph.accessKey,
    secretAccessKey: ceph.secretKey,
    sessionToken: 'a-token',
  }
  const bucket = await ceph.createBucket()
  await using storage = await openAt(proxy.endpoint, bucket, { credentials })
  await storage.put('a', pattern(1))
  for (const { headers } of proxy.seen) {
    assert.equal(headers['x-amz-security-token'], 'a-token')
    assert.match(headers.authorization ?? '', /x-amz-security-token/)
  }
})
