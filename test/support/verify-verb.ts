import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import type { Verified } from '#service/verify'
import { type Ran, refused, runCommand } from './command.ts'
import { until } from './mysql-family-harness.ts'

const launcher = path.resolve(import.meta.dirname, '../../redoubt')

export type VerbTrial = {
  /** Hold a table `one` of three rows, that are equal, in the pattern `scope.one`. */
  readonly from: string
  readonly to: string
  readonly scope: string
  /** Makes one row of the target differ. */
  readonly spoil: () => Promise<unknown>
  /** Makes every reader of the target's table wait until it is disposed. */
  readonly hold: () => Promise<AsyncDisposable>
  /** Sessions that read the target's table now, or wait for it. */
  readonly readers: () => Promise<number>
  /** Whether they end while the table is still held. */
  readonly endAtOnce: boolean
}

function documentOf(ran: Ran): Verified {
  return JSON.parse(ran.out) as Verified
}

/** Exit codes and documents of the verb, and what it leaves behind when it is interrupted. */
export async function verbTrial(trial: VerbTrial): Promise<void> {
  const ends = ['--from', trial.from, '--to', trial.to]
  const verify = (...more: readonly string[]) =>
    runCommand(['verify', ...ends, '--recheck', '100ms', ...more])
  const equal = await verify('--include', `${trial.scope}.*`)
  assert.deepEqual([equal.code, documentOf(equal).equal], [0, true], equal.out + equal.said)
  assert.equal(Number(documentOf(equal).tables[0]?.sourceRows), 3)
  assert.doesNotMatch(equal.out + equal.said, /secret/)
  await trial.spoil()
  const different = await verify('--include', `${trial.scope}.one`, '--limit', '1000rows/s')
  assert.deepEqual([different.code, documentOf(different).equal], [3, false], different.out)
  const told = await said([...ends, '--recheck', '100ms', '--repair', 'plan'])
  assert.equal(told.code, 3, told.out)
  assert.match(told.out, /✗ different: \S+\.one where id = 2: v/)
  assert.match(told.out, /^update .* set .*;$/im)
  assert.match(told.out, /compared \d+ objects, 3 rows of 1 tables in .*: 1 rows differ/)
  const schema = await verify('--mode', 'schema')
  assert.deepEqual([schema.code, documentOf(schema).tables], [0, []], schema.out)
  refused(await verify('--include', `${trial.scope}.slip`), 'a slip', 5, /slip|neither has/)
  refused(await verify('--exclude', `${trial.scope}.*`), 'nothing', 5, /neither has any such/)
  await interrupted(trial, ends)
  const repaired = await verify('--repair', 'apply')
  assert.deepEqual([repaired.code, documentOf(repaired).equal], [0, true], repaired.out)
}

/** Runs it as a person would. */
async function said(
  args: readonly string[],
): Promise<{ readonly code: number; readonly out: string }> {
  const child = spawn(launcher, ['verify', ...args], { stdio: ['ignore', 'pipe', 'ignore'] })
  const ended = new Promise<number>((resolve, reject) => {
    child.once('error', reject).once('close', (code) => resolve(code ?? 128))
  })
  return { out: await text(child.stdout), code: await ended }
}

async function interrupted(trial: VerbTrial, ends: readonly string[]): Promise<void> {
  const gone = () => until(async () => (await trial.readers()) === 0, 'the statements to end')
  {
    await using _held = await trial.hold()
    const child = spawn(launcher, ['verify', ...ends, '--json'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    const ended = new Promise<number>((resolve, reject) => {
      child.once('error', reject).once('close', (code) => resolve(code ?? 128))
    })
    const out = text(child.stdout)
    await until(async () => (await trial.readers()) > 0, 'the comparison to read')
    child.kill('SIGINT')
    assert.equal(await ended, 130, await out)
    const { error } = JSON.parse(await out) as { error: { code: string } }
    assert.equal(error.code, 'interrupted')
    if (trial.endAtOnce) await gone()
  }
  await gone()
}
