import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { test } from 'node:test'
import { FaultProxy, type NetworkFaults } from './fault-proxy.ts'

/** A server that sends back what it gets, behind a proxy. */
async function echo(faults: NetworkFaults) {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => socket.destroy())
    socket.pipe(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  assert.ok(address && typeof address === 'object')
  const proxy = await FaultProxy.start({ port: address.port })
  proxy.set(faults)
  const dispose = async () => {
    await proxy[Symbol.asyncDispose]()
    server.close()
  }
  return { proxy, [Symbol.asyncDispose]: dispose }
}

async function talk(port: number, sent: Buffer): Promise<{ got: Buffer; error?: string }> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
  socket.end(sent)
  const parts: Buffer[] = []
  try {
    for await (const part of socket as AsyncIterable<Buffer>) parts.push(part)
    return { got: Buffer.concat(parts) }
  } catch (error) {
    return { got: Buffer.concat(parts), error: (error as NodeJS.ErrnoException).code ?? '' }
  }
}

const sent = Buffer.alloc(300_000, 'abcdefg')

test('without faults everything passes', async () => {
  await using world = await echo({})
  assert.ok(sent.equals((await talk(world.proxy.port, sent)).got))
  assert.deepEqual(world.proxy.bytes, { up: sent.length, down: sent.length })
})

test('delay, jitter and rate slow down and change nothing', async () => {
  await using world = await echo({ delayMs: 30, jitterMs: 10 })
  const started = performance.now()
  assert.ok(sent.equals((await talk(world.proxy.port, sent)).got))
  assert.ok(performance.now() - started >= 60, 'both ways are delayed')
  world.proxy.set({ bytesPerSecond: 1_000_000 })
  const paced = performance.now()
  assert.ok(sent.equals((await talk(world.proxy.port, sent)).got))
  assert.ok(performance.now() - paced >= 300, 'a third of a second’s worth')
})

test('a connection is reset or ended at the byte that was named, in either direction', async () => {
  await using world = await echo({ endAt: { direction: 'down', byte: 100_000 } })
  assert.deepEqual(await talk(world.proxy.port, sent), { got: sent.subarray(0, 100_000) })
  world.proxy.set({ endAt: { direction: 'up', byte: 70_000 } })
  assert.deepEqual(await talk(world.proxy.port, sent), { got: sent.subarray(0, 70_000) })
  for (const direction of ['up', 'down'] as const) {
    world.proxy.set({ resetAt: { direction, byte: 100_000 } })
    assert.equal((await talk(world.proxy.port, sent)).error, 'ECONNRESET')
  }
})

test('one byte arrives turned over', async () => {
  for (const direction of ['up', 'down'] as const) {
    await using world = await echo({ flipAt: { direction, byte: 123_456 } })
    const { got } = await talk(world.proxy.port, sent)
    const wanted = Buffer.from(sent)
    wanted[123_456] = ~(wanted[123_456] ?? 0) & 0xff
    assert.ok(wanted.equals(got))
  }
})

test('refused, reset and silent connections', async () => {
  await using world = await echo({ refuse: true })
  assert.equal((await talk(world.proxy.port, sent)).error, 'ECONNRESET')
  for (const silent of [['up'], ['down'], ['up', 'down']] as const) {
    world.proxy.set({ silent })
    const socket = connect(world.proxy.port, '127.0.0.1')
    let got = 0
    socket.on('data', (part: Buffer) => (got += part.length))
    // What the proxy has read and would pass on has had its chance then.
    const wanted = world.proxy.bytes.up + sent.length
    socket.write(sent)
    while (world.proxy.bytes.up < wanted) await new Promise((resolve) => setImmediate(resolve))
    assert.equal(got, 0)
    const failed = once(socket, 'error')
    world.proxy.resetAll()
    const [error] = (await failed) as [NodeJS.ErrnoException]
    assert.equal(error.code, 'ECONNRESET')
  }
})
