import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { openStorage } from '#storage/all'
import { initVault, type Vault } from '#vault'
import { encodeText } from '../../src/vault/archive/names.ts'
import { collect, source } from './archive.ts'
import { HttpFaultProxy, type SeenRequest } from './http-fault-proxy.ts'
import type { CrashMoment } from './killed/storage.ts'
import { largeBlocks, largeSegment, segmentBytes } from './large-log.ts'
import { createProbedBucket } from './probed-bucket.ts'
import { Scratch } from './scratch.ts'

const { signal } = new AbortController()
const program = path.join(import.meta.dirname, 'large-log-child.ts')
const cost = { repository: { n: 2, r: 8, p: 1 }, identity: 1 }

/** A request of an upload in parts, and when the archiver dies at it. */
export type UploadKill = { readonly request: string; readonly moment: CrashMoment }

/** Which requests there are: the beginning, each part, the end. */
const requests: Readonly<Record<string, (request: SeenRequest) => boolean>> = {
  begin: ({ method, path: to }) => method === 'POST' && /[?&]uploads/.test(to),
  'part 1': ({ path: to }) => /[?&]partNumber=1(&|$)/.test(to),
  'part 2': ({ path: to }) => /[?&]partNumber=2(&|$)/.test(to),
  'part 3': ({ path: to }) => /[?&]partNumber=3(&|$)/.test(to),
  complete: ({ method, path: to }) => method === 'POST' && /[?&]uploadId=/.test(to),
}

export const uploadKills: readonly UploadKill[] = Object.keys(requests).flatMap((request) =>
  (['before', 'middle', 'after'] as const).map((moment) => ({ request, moment })),
)

/**
 * Kills an archiver at requests of an upload in parts, each in another segment: the object of a segment is there whole
 * or not at all, and the next archiver makes it. Returns how many were killed.
 */
export async function killUploads(kills: readonly UploadKill[]): Promise<number> {
  using scratch = new Scratch('multipart')
  const { ceph, bucket } = await createProbedBucket()
  Object.assign(process.env, ceph.env)
  await using proxy = await HttpFaultProxy.start({ port: ceph.port })
  const direct = ceph.url(bucket, 'vault')
  const url = direct.replace(ceph.endpoint, proxy.endpoint)
  await using vault = await initVault(await openStorage(direct), { password: 'p', cost, signal })
  const stateFile = scratch.join('archiver.json')
  writeFileSync(stateFile, await vault.keys.enrol('child', { signal }))
  const archive = (until: number) => {
    const args = [url, stateFile, scratch.join('spool'), String(until)]
    const child = spawn(process.execPath, [program, ...args], {
      env: { ...process.env, ...ceph.env },
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    const said = text(child.stderr)
    const kill = () => void child.kill('SIGKILL')
    const ended = once(child, 'close').then(async ([code, killedBy]: unknown[]) => {
      assert.ok(code === 0 || killedBy === 'SIGKILL', await said)
      return killedBy === 'SIGKILL'
    })
    return { kill, ended }
  }
  let killed = 0
  for (const [number, { request, moment }] of kills.entries()) {
    const until = (number + 1) * segmentBytes
    const first = archive(until)
    const isIt = requests[request]
    proxy.rule = (seen) =>
      isIt?.(seen) ? { kind: 'call', when: moment, call: first.kill } : undefined
    const what = `killed ${moment} ${request}`
    assert.ok(await first.ended, `${what}: it ended`)
    killed += 1
    proxy.rule = () => undefined
    // What is there must be right, whichever way it is held.
    await assertSegment(vault, number, `${what}, at once`)
    assert.equal(await archive(until).ended, false)
    await assertSegment(vault, number, what)
    const name = `-${encodeText(largeSegment(number))}-`
    const keys = await Array.fromAsync(vault.storage.list('log/'), ({ key }) => key)
    assert.equal(keys.filter((key) => key.includes(name) && key.includes('.full.')).length, 1, what)
  }
  const findings = await vault.check({ signal, readData: true })
  assert.deepEqual(
    findings.filter(({ severity }) => severity !== 'notes'),
    [],
  )
  return killed
}

/** What the archive holds of a segment is the log's, to where it ends. */
async function assertSegment(vault: Vault, number: number, what: string): Promise<void> {
  const reader = await vault.archive.openReader(source, { signal })
  const first = number * segmentBytes
  const expected = [...largeBlocks(first, first + segmentBytes)].map(({ bytes }) => bytes)
  const held = await collect(await reader.read(largeSegment(number), { signal }))
  assert.ok(held.length > 0, what)
  assert.ok(held.equals(Buffer.concat(expected).subarray(0, held.length)), what)
  if (held.length < segmentBytes) assert.match(what, /at once/)
}
