import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, test } from 'node:test'
import { Fault } from '#base/faults'
import { fetchWal } from './wal-fetch.ts'
import { WalServer } from './wal-server.ts'

const folder = mkdtempSync(path.join(tmpdir(), 'redoubt-fetch-'))
after(() => rmSync(folder, { recursive: true }))

const serve = (name: string, find: Parameters<typeof WalServer.listen>[1]) =>
  WalServer.listen(path.join(folder, name), find)

async function* pieces(...list: readonly Buffer[]) {
  yield* list
}

test('a file is fetched whole, many at a time, and 1 says that there is none', async () => {
  const bytes = Buffer.alloc(3 << 20, 'wal')
  await using _server = await serve('a', async (name) =>
    name.startsWith('0')
      ? { sizeBytes: bytes.length, content: pieces(bytes.subarray(0, 7), bytes.subarray(7)) }
      : undefined,
  )
  const target = (n: number) => path.join(folder, `got-${n}`)
  const socket = path.join(folder, 'a')
  const codes = await Promise.all([1, 2, 3, 4].map((n) => fetchWal(socket, `0${n}`, target(n))))
  assert.deepEqual(codes, [0, 0, 0, 0])
  for (const n of [1, 2, 3, 4]) assert.ok(readFileSync(target(n)).equals(bytes))
  assert.equal(await fetchWal(socket, 'none', target(9)), 1)
  assert.equal(existsSync(target(9)), false)
})

test('trouble is above 125 and leaves no file: a failure, a cut-off answer, nobody there', async () => {
  const target = path.join(folder, 'bad')
  await using _failing = await serve('b', async () => {
    throw new Fault('gap', 'read the log: a part is missing')
  })
  await using _short = await serve('c', async () => ({
    sizeBytes: 10,
    content: pieces(Buffer.alloc(4)),
  }))
  await using _long = await serve('e', async () => ({
    sizeBytes: 2,
    content: pieces(Buffer.alloc(4)),
  }))
  for (const name of ['b', 'c', 'd', 'e']) {
    assert.equal(await fetchWal(path.join(folder, name), '0', target), 126, name)
    assert.equal(existsSync(target), false, name)
  }
})

test('a server that hangs up without a word is trouble, not an end of the log', async () => {
  const socket = path.join(folder, 'f')
  const server = createServer((connection) => connection.destroy()).listen(socket)
  assert.equal(await fetchWal(socket, '0', path.join(folder, 'x')), 126)
  server.close()
})
