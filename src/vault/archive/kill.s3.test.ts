import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { collect, FakeLog, source } from '../../../test/support/archive.ts'
import { Scratch } from '../../../test/support/scratch.ts'
import { sharedCeph } from '../../../test/support/servers/ceph.ts'
import { openStorage, type StorageOptions } from '#storage/all'
import { initVault } from '../vault.ts'

const { signal } = new AbortController()
const program = fileURLToPath(new URL('../../../test/support/archiver-child.ts', import.meta.url))
const log = new FakeLog({ segmentBytes: 60_000 })
const total = 1_200_000
const kills = 7
const password = 'p'
const cost = { repository: { n: 2, r: 1, p: 1 }, identity: 1 }

type Place = {
  readonly url: string
  readonly env: Readonly<Record<string, string>>
  readonly options: StorageOptions
}

/** Runs the archiver and kills it after some parts, or at its end; returns the last position it called durable. */
async function runAndKill(
  place: Place,
  args: readonly string[],
  killAfter: number,
): Promise<{ durable: number; ended: boolean }> {
  const child = spawn(process.execPath, [program, place.url, ...args], {
    env: { ...process.env, ...place.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const errors: Buffer[] = []
  child.stderr.on('data', (bytes: Buffer) => errors.push(bytes))
  const closed = once(child, 'close')
  let durable = 0
  let lines = 0
  for await (const line of createInterface({ input: child.stdout })) {
    const end = Number(line) < 0
    if (!end) durable = Number(line)
    lines += 1
    // Not on the answer itself: somewhere within what comes next.
    if (lines === killAfter || (end && lines < killAfter))
      void delay(Math.random() * 12).then(() => child.kill('SIGKILL'))
  }
  const [code, killedBy] = (await closed) as [number | null, string | null]
  if (killedBy === null && code !== 0) assert.fail(Buffer.concat(errors).toString())
  return { durable, ended: killedBy === null }
}

async function killOverAndOver(place: Place): Promise<void> {
  using scratch = new Scratch()
  const storage = await openStorage(place.url, place.options)
  const vault = await initVault(storage, { password, cost, signal })
  const stateFile = scratch.join('archiver.json')
  writeFileSync(stateFile, await vault.keys.enrol('child', { signal }))
  let killed = 0
  for (let ended = false, durable = 0; !ended; ) {
    // Now and then on a host that has lost its spool.
    const folder = scratch.join(`state-${Math.floor(killed / 4)}`)
    const after = killed < kills ? 1 + Math.floor(Math.random() * 30) : Number.POSITIVE_INFINITY
    const stay = killed < kills ? ['stay'] : []
    const run = await runAndKill(place, [stateFile, folder, String(total), ...stay], after)
    durable = Math.max(durable, run.durable)
    ended = run.ended
    if (!ended) killed += 1
    const reader = await vault.archive.openReader(source, { signal })
    let held = 0
    for await (const segment of reader.segments(
      { history: 'h1', at: '0'.repeat(12) },
      { signal },
    )) {
      held = Number(segment.next)
      if (!ended) continue
      const bytes = await collect(await reader.read(segment.segment, { signal }))
      const first = Number(segment.first)
      assert.ok(bytes.equals(log.bytes(first, first + bytes.length)), segment.segment)
    }
    assert.ok(held >= durable, `killed ${killed}: ${held} held, ${durable} were durable`)
    if (ended) assert.equal(held, total)
  }
  assert.equal(killed, kills)
  const findings = await vault.check({ signal, readData: true })
  assert.deepEqual(
    findings.filter(({ severity }) => severity !== 'notes'),
    [],
  )
}

test('an archiver killed over and over loses nothing that it called durable, on a disk', async () => {
  using scratch = new Scratch()
  const url = scratch.join('vault')
  await killOverAndOver({ url, env: {}, options: { create: true } })
})

test('an archiver killed over and over loses nothing that it called durable, in S3', async () => {
  const ceph = await sharedCeph()
  const credentials = { accessKeyId: ceph.accessKey, secretAccessKey: ceph.secretKey }
  const url = ceph.url(await ceph.createBucket(), 'vault')
  await killOverAndOver({ url, env: ceph.env, options: { credentials } })
})

test('an archiver killed over and over loses nothing that it called durable, in S3 with object lock', async () => {
  const ceph = await sharedCeph()
  const credentials = { accessKeyId: ceph.accessKey, secretAccessKey: ceph.secretKey }
  const url = ceph.url(await ceph.createBucket({ objectLock: true }), 'vault')
  await killOverAndOver({ url, env: ceph.env, options: { credentials } })
})
