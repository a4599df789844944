import assert from 'node:assert/strict'
import { appendFile, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { isFault } from '#base/faults'
import { seededRandom } from '#base/random'
import type { LogBlock, Position } from '#change'
import { type Journal, openJournal } from './journal.ts'

let directory = ''
const { signal } = new AbortController()

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'redoubt-journal-'))
})
afterEach(async () => {
  await rm(directory, { recursive: true, force: true })
})

const name = (n: number) => String(n).padStart(6, '0')

function block(n: number, more: Partial<LogBlock> = {}): LogBlock {
  return {
    kind: 'block',
    history: 'a',
    segment: 'binlog.000001',
    offset: n,
    bytes: Buffer.alloc(100, n),
    first: name(n),
    next: name(n + 1),
    commits: [{ at: name(n + 1), timeUs: BigInt(n) * 1_000_000n, id: `0-1-${n}` }],
    closes: false,
    ...more,
  }
}

const open = (limitBytes = 1 << 20) => openJournal(directory, { limitBytes, signal })

async function fill(journal: Journal, from: number, to: number): Promise<void> {
  for (let n = from; n < to; n++) await journal.append(block(n), { signal })
}

async function take(journal: Journal, count: number, after?: Position): Promise<LogBlock[]> {
  const blocks: LogBlock[] = []
  if (count === 0) return blocks
  for await (const one of journal.read(after, { signal })) {
    blocks.push(one)
    if (blocks.length === count) break
  }
  return blocks
}

async function lastFile(): Promise<string> {
  const names = (await readdir(directory)).filter((file) => file.endsWith('.journal'))
  return join(directory, names.toSorted().at(-1) ?? '')
}

test('a journal gives back what was appended, also after it was opened again', async () => {
  {
    await using journal = await open()
    await fill(journal, 0, 5)
    assert.deepEqual(journal.durable(), { history: 'a', at: name(5) })
  }
  await using journal = await open()
  assert.deepEqual(journal.durable(), { history: 'a', at: name(5) })
  assert.deepEqual(journal.first(), { history: 'a', at: name(0) })
  const expected = [0, 1, 2, 3, 4].map((n) => block(n))
  assert.deepEqual(await take(journal, 5), expected)
})

test('invariant 2: a tail cut at any byte is the end of the last whole record', async () => {
  {
    await using journal = await open()
    await fill(journal, 0, 3)
  }
  const whole = await readFile(await lastFile())
  const recordBytes = whole.length / 3
  for (let cut = 0; cut <= whole.length; cut += 7) {
    await writeFile(await lastFile(), whole)
    await truncate(await lastFile(), cut)
    await using journal = await open()
    const records = Math.floor(cut / recordBytes)
    const at = journal.durable()?.at
    assert.equal(at, records === 0 ? undefined : name(records), `cut at ${cut}`)
    assert.equal((await take(journal, records)).length, records)
    await journal.append(block(records), { signal })
    assert.equal(journal.durable()?.at, name(records + 1))
  }
})

test('invariant 2: garbage or zeroes behind the last record are cut off', async () => {
  for (const garbage of [Buffer.alloc(5000), Buffer.from('no record at all, but long enough')]) {
    await rm(directory, { recursive: true, force: true })
    {
      await using journal = await open()
      await fill(journal, 0, 2)
    }
    await appendFile(await lastFile(), garbage)
    await using journal = await open()
    assert.equal(journal.durable()?.at, name(2))
    await fill(journal, 2, 4)
    assert.equal((await take(journal, 4)).length, 4)
  }
})

test('invariant 3: a byte flipped in an older file is reported, not skipped', async () => {
  {
    await using journal = await open(2000)
    await fill(journal, 0, 4)
  }
  const [oldest = ''] = (await readdir(directory)).filter((f) => f.endsWith('.journal')).toSorted()
  const path = join(directory, oldest)
  const bytes = await readFile(path)
  bytes.writeUInt8(bytes.readUInt8(150) ^ 1, 150)
  await writeFile(path, bytes)
  await assert.rejects(open(2000), (error) => isFault(error, 'corrupt'))
})

test('invariant 4: a block that does not continue the last one is refused', async () => {
  await using journal = await open()
  await fill(journal, 0, 2)
  await assert.rejects(journal.append(block(3), { signal }), (error) => isFault(error, 'gap'))
  await journal.append(block(2, { history: 'b' }), { signal })
  assert.deepEqual(journal.durable(), { history: 'b', at: name(3) })
})

test('read() starts behind a position and follows what comes', async () => {
  await using journal = await open()
  await fill(journal, 0, 4)
  const reading = take(journal, 4, { history: 'a', at: name(2) })
  await fill(journal, 4, 6)
  assert.deepEqual(
    (await reading).map((one) => one.first),
    [name(2), name(3), name(4), name(5)],
  )
})

test('read() crosses files, and says when what it was asked for is gone', async () => {
  await using journal = await open(4000)
  await fill(journal, 0, 12)
  assert.equal((await take(journal, 12)).length, 12)
  await journal.trim({ history: 'a', at: name(8) })
  const firstHeld = journal.first()?.at ?? ''
  assert.ok(firstHeld > name(0) && firstHeld <= name(8), firstHeld)
  const lost = take(journal, 1, { history: 'a', at: name(0) })
  await assert.rejects(lost, (error) => isFault(error, 'log-lost'))
  assert.equal((await take(journal, 1, { history: 'a', at: name(9) }))[0]?.first, name(9))
})

test('read() ends with the signal, and when the journal is closed', async () => {
  const journal = await open()
  const abort = new AbortController()
  const aborted = assert.rejects(journal.read(undefined, { signal: abort.signal }).next(), /enough/)
  abort.abort(new Error('enough'))
  await aborted
  const closed = assert.rejects(journal.read(undefined, { signal }).next(), (error) =>
    isFault(error, 'interrupted'),
  )
  await journal[Symbol.asyncDispose]()
  await closed
})

test('invariant 5: append() waits at the limit until trim() makes room', async () => {
  await using journal = await open(3000)
  let appended = 0
  const filling = (async () => {
    for (let n = 0; n < 40; n++) {
      await journal.append(block(n), { signal })
      appended += 1
    }
  })()
  for await (const one of journal.read(undefined, { signal })) {
    assert.ok(journal.sizeBytes <= 3000 + 400, `${journal.sizeBytes} bytes held`)
    await journal.trim({ history: 'a', at: one.next })
    if (one.next === name(40)) break
  }
  await filling
  assert.equal(appended, 40)
})

test('reset() forgets everything and ends the readers with log-lost', async () => {
  await using journal = await open()
  await fill(journal, 0, 2)
  const reader = journal.read({ history: 'a', at: name(2) }, { signal })
  const lost = assert.rejects(reader.next(), (error) => isFault(error, 'log-lost'))
  await journal.reset({ signal })
  await lost
  assert.equal(journal.durable(), undefined)
  await journal.append(block(7), { signal })
  assert.equal((await take(journal, 1))[0]?.first, name(7))
})

test('invariant 1: one process at a time has a journal open', async () => {
  await using journal = await open()
  assert.equal(journal.sizeBytes, 0)
  await assert.rejects(open(), (error) => isFault(error, 'locked'))
})

test('invariant 1: the lock of a process that died is taken over', async () => {
  await writeFile(join(directory, 'journal.lock'), '999999999 123\n')
  await using journal = await open()
  assert.equal(journal.sizeBytes, 0)
})

test('positionAt() tells the last commit before the first one that is stamped later', async () => {
  // Some blocks end no commit, some end several, and stamps go back now and then.
  const random = seededRandom(7)
  const blocks = Array.from({ length: 400 }, (_, n) => {
    const commits = Array.from({ length: Math.floor(random() * 3) }, (_unused, i) => ({
      at: `${name(n + 1)}.${i}`,
      timeUs: BigInt(n * 10 + Math.floor(random() * 25)),
      id: '',
    }))
    return block(n, { commits, bytes: Buffer.alloc(20_000, n) })
  })
  const all = blocks.flatMap(({ commits }) => commits)
  const wanted = (timeUs: bigint) => {
    const later = all.findIndex((commit) => commit.timeUs > timeUs)
    return (later < 0 ? all.at(-1) : all[later - 1])?.at
  }
  const look = async (journal: Journal) => {
    for (let timeUs = -5n; timeUs < 4100n; timeUs += 37n) {
      const found = await journal.positionAt(timeUs, { signal })
      assert.equal(found?.at, wanted(timeUs), `at ${timeUs}`)
    }
  }
  const limitBytes = 16 << 20
  {
    await using journal = await open(limitBytes)
    assert.equal(await journal.positionAt(5n, { signal }), undefined)
    for (const one of blocks) await journal.append(one, { signal })
    await look(journal)
  }
  await using journal = await open(limitBytes)
  await look(journal)
  await journal.reset({ signal })
  assert.equal(await journal.positionAt(5n, { signal }), undefined)
})
