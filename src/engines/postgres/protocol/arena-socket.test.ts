import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { test } from 'node:test'
import { Scratch } from '../../../../test/support/scratch.ts'
import { ArenaSocket } from './arena-socket.ts'
import { Wire } from './wire.ts'

/** Sends CopyData messages of many sizes, and then closes. */
async function serve(path: string, messages: readonly Buffer[]) {
  const server = createServer((socket) => {
    socket.resume()
    void (async () => {
      for (const body of messages) {
        const head = Buffer.from('d....', 'latin1')
        head.writeInt32BE(body.length + 4, 1)
        socket.write(head)
        if (!socket.write(body)) await once(socket, 'drain')
      }
      socket.end()
    })()
  })
  server.listen(path)
  await once(server, 'listening')
  return server
}

// A reader that is at times slower and at times faster than the sender: what it holds must stay as it came.
for (const pauseEvery of [1, 3, 1000]) {
  test(`bytes hold while a reader uses them that rests at every message of ${pauseEvery}`, async () => {
    using scratch = new Scratch('arena')
    const signal = AbortSignal.timeout(600_000)
    const messages = Array.from({ length: 1500 }, (_, i) => randomBytes((i * 7919) % 65_537))
    await using server = await serve(scratch.join('socket'), messages)
    assert.ok(server.listening)
    const arena = new ArenaSocket()
    arena.socket.connect(scratch.join('socket'))
    const wire = new Wire(arena.socket, 'the test', () => arena.drained())
    const [sent, came] = [createHash('sha256'), createHash('sha256')]
    for (const [index, body] of messages.entries()) {
      sent.update(body)
      const message = await wire.next(signal)
      assert.equal(message?.body.length, body.length)
      for (let turn = index % pauseEvery; turn === 0; turn += 1) {
        await new Promise((resolve) => setImmediate(resolve))
        await new Promise((resolve) => setImmediate(resolve))
      }
      came.update(message?.body ?? '')
    }
    assert.equal(came.digest('hex'), sent.digest('hex'))
    wire.close()
  })
}
