import assert from 'node:assert/strict'
import { Duplex } from 'node:stream'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { decodeStreamMessage, encodeStandbyStatus } from './replication.ts'
import { Wire } from './wire.ts'

const signal = AbortSignal.timeout(600_000)

function message(type: string, ...parts: readonly (string | Buffer)[]): Buffer {
  const body = Buffer.concat(parts.map((part) => Buffer.from(part)))
  const head = Buffer.alloc(5)
  head.write(type, 0, 'latin1')
  head.writeInt32BE(body.length + 4, 1)
  return Buffer.concat([head, body])
}

/** A connection of which the test plays the server. */
class Line extends Duplex {
  readonly sent: Buffer[] = []
  override _read(): void {}
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.sent.push(chunk)
    done()
  }
}

const row = message(
  'D',
  Buffer.from([0, 3, 0, 0, 0, 2]),
  'ab',
  Buffer.from([255, 255, 255, 255]),
  Buffer.from([0, 0, 0, 0]),
)
const answer = Buffer.concat([
  message('N', 'SNOTICE\0C00000\0Mhello\0\0'),
  message('T', Buffer.from([0, 0])),
  row,
  message('C', 'SELECT 1\0'),
  message('Z', 'I'),
])

test('Wire reads a result the same wherever the bytes are cut', async () => {
  for (let cut = 1; cut < answer.length; cut += 1) {
    const line = new Line()
    const wire = new Wire(line, 'a test')
    const result = wire.query('select', signal)
    line.push(answer.subarray(0, cut))
    setImmediate(() => line.push(answer.subarray(cut)))
    assert.deepEqual(await result, [[['ab', undefined, '']]], `cut at ${cut}`)
    assert.equal(line.sent[0]?.toString('latin1'), 'Q\0\0\0\x0bselect\0')
    wire.close()
  }
})

test('an error is thrown with its code once the server is ready again', async () => {
  const line = new Line()
  const wire = new Wire(line, 'a test')
  line.push(message('E', 'SERROR\0C55006\0Mslot is active\0Dfor PID 5\0\0'))
  line.push(message('Z', 'I'))
  await assert.rejects(
    wire.query('START', signal, 'open the slot'),
    (error) =>
      isFault(error, 'locked') && error.message === 'open the slot: slot is active (for PID 5)',
  )
  line.push(answer)
  assert.equal((await wire.query('again', signal)).length, 1)
  wire.close()
})

test('a length that cannot be, and the end of the connection, are Faults', async () => {
  const broken = new Line()
  const wire = new Wire(broken, 'a test')
  broken.push(Buffer.from([0x44, 0xff, 0xff, 0xff, 0xff]))
  await assert.rejects(wire.next(signal), (error) => isFault(error, 'protocol'))
  const ended = new Line()
  const other = new Wire(ended, 'a test')
  ended.push(message('d', 'half').subarray(0, 6))
  ended.push(null)
  await assert.rejects(other.next(signal), (error) => isFault(error, 'unreachable'))
})

test('a silent server is waited for no longer than asked, and an abort ends the wait', async () => {
  const line = new Line()
  const wire = new Wire(line, 'a test')
  assert.equal(await wire.next(signal, 5), undefined)
  const stop = new AbortController()
  const waiting = wire.next(stop.signal)
  stop.abort(new Error('enough'))
  await assert.rejects(waiting, /enough/)
  wire.close()
})

test('all that came during a rest comes after it, in however many pieces', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  const line = new Line()
  const wire = new Wire(line, 'a test')
  wire.coalesce(100, 'always')
  const countHere = () => {
    let count = 0
    while (wire.poll()) count += 1
    return count
  }
  const settled = async () => {
    for (let turn = 0; turn < 5; turn += 1) await new Promise(setImmediate)
  }
  line.push(row)
  await settled()
  assert.equal(countHere(), 1)
  for (let round = 0; round < 3; round += 1) {
    for (let piece = 0; piece < 50; piece += 1) {
      line.push(row)
      await new Promise(setImmediate)
    }
    assert.equal(countHere(), 0, 'while it rests')
    t.mock.timers.tick(100)
    await settled()
    assert.equal(countHere(), 50, `after rest ${round}`)
  }
  wire.close()
})

test('what came before the connection broke is read, also when it broke during a rest', async () => {
  const line = new Line()
  const wire = new Wire(line, 'a test')
  wire.coalesce(60_000, 'always')
  for (let piece = 0; piece < 20; piece += 1) {
    line.push(row)
    await new Promise(setImmediate)
  }
  line.destroy(new Error('reset'))
  for (let piece = 0; piece < 20; piece += 1) assert.equal((await wire.next(signal))?.type, 'D')
  await assert.rejects(wire.next(signal), (error) => isFault(error, 'unreachable'))
  wire.close()
})

test('stream messages are read, and bad ones refused', () => {
  const wal = Buffer.alloc(28)
  wal.write('w', 0)
  wal.writeBigUInt64BE(0x1000n, 1)
  wal.writeBigUInt64BE(0x2000n, 9)
  wal.writeBigInt64BE(0n, 17)
  wal.write('abc', 25)
  assert.deepEqual(decodeStreamMessage(wal), {
    kind: 'wal',
    first: 0x1000n,
    serverEnd: 0x2000n,
    sentUs: 946_684_800_000_000n,
    bytes: Buffer.from('abc'),
  })
  const alive = Buffer.alloc(18)
  alive.write('k', 0)
  alive.writeBigUInt64BE(7n, 1)
  alive[17] = 1
  const read = decodeStreamMessage(alive)
  assert.ok(read.kind === 'keepalive' && read.wantsReply && read.serverEnd === 7n)
  for (const bad of [Buffer.alloc(0), Buffer.from('w123'), Buffer.from('k'), Buffer.from('x')]) {
    assert.throws(
      () => decodeStreamMessage(bad),
      (error) => isFault(error, 'protocol'),
    )
  }
})

test('a status tells what is written and what is durable', () => {
  const status = encodeStandbyStatus({
    written: 9n,
    flushed: 5n,
    nowMs: 946_684_800_001,
    wantsReply: true,
  })
  assert.equal(
    status.toString('hex'),
    `72${'0'.repeat(15)}9${'0'.repeat(15)}5${'0'.repeat(15)}5${'0'.repeat(13)}3e801`,
  )
})

test('copyRun() hands on the bytes of CopyData messages as they came, wherever they are cut, and stops before another', async () => {
  const rows = [message('d', 'first'), message('d'), message('d', 'the third'), message('d', '4')]
  const data = Buffer.concat(rows)
  const all = Buffer.concat([data, message('c'), message('C', 'COPY 4\0')])
  for (let cut = 1; cut < all.length; cut += 1) {
    for (const second of [cut, cut + 1, cut + 7]) {
      const line = new Line()
      const wire = new Wire(line, 'a test')
      const came: Buffer[] = []
      let messages = 0
      line.push(all.subarray(0, cut))
      setImmediate(() => {
        if (second > cut && second < all.length) line.push(all.subarray(cut, second))
        setImmediate(() => line.push(all.subarray(Math.max(cut, Math.min(second, all.length)))))
      })
      for (;;) {
        const run = await wire.copyRun(signal)
        if (!run) break
        came.push(Buffer.from(run.bytes))
        messages += run.messages
      }
      assert.equal(Buffer.concat(came).toString('latin1'), data.toString('latin1'), `cut at ${cut}`)
      assert.equal(messages, rows.length)
      assert.equal((await wire.expect(signal, 'copy')).type, 'c')
      wire.close()
    }
  }
})

test('copyRun() refuses a message of no length', async () => {
  const line = new Line()
  const wire = new Wire(line, 'a test')
  line.push(Buffer.from([0x64, 0, 0, 0, 1, 0]))
  await assert.rejects(wire.copyRun(signal), (error) => isFault(error, 'protocol'))
  wire.close()
})
