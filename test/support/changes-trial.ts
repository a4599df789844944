import assert from 'node:assert/strict'
import { tasks } from '#base/tasks'
import { Dice } from './dice.ts'
import { migratedOf, runMigrate, standsAt } from './migrate-trial.ts'
import { Scratch } from './scratch.ts'

/** Two servers, the first with tables that `write` knows. */
export type ChangesPair = {
  /** `--from` and `--to` with what is theirs. */
  readonly ends: readonly string[]
  /** A connection of one writer; each call is a transaction. */
  openWriter(writer: number): Promise<Writer>
  /** A transaction that is too large for one piece. */
  writeLarge(): Promise<void>
  /** Definitions that the source's log tells of, where it does. */
  readonly define?: (() => Promise<void>) | undefined
  /** Changes have come to the target. */
  applies(): Promise<boolean>
  /** The target dies, and comes back. */
  loseTarget(): Promise<void>
  /** Fails where target and source differ, or anything of the link is left on either. */
  same(): Promise<void>
}

export type Writer = AsyncDisposable & { write(seq: number): Promise<void> }

const writers = 3
/** They rest between transactions: whatever the machine, the source is not written to faster than the target can follow. */
const restMs = 10
/**
 * The first kill is while rows are copied; the others while changes are applied, or when these begin. Wherever the one
 * before had come to, two of these lines come: applying and reading.
 */
const line = /applies changes|reads changes behind|makes foreign keys/
const passes = 2
const afterMsMax = 1500

async function keepWriting(pair: ChangesPair, name: number, signal: AbortSignal): Promise<void> {
  await using writer = await pair.openWriter(name)
  for (let seq = 1; !signal.aborted; seq++) {
    await writer.write(seq)
    await new Promise((resolve) => setTimeout(resolve, restMs))
  }
}

/** Does something while all writers write; the failure of one of them is its failure. */
async function besideWriters(pair: ChangesPair, work: () => Promise<void>): Promise<void> {
  const stop = new AbortController()
  await tasks(undefined, async (t) => {
    for (let writer = 0; writer < writers; writer++) {
      t.run(() => keepWriting(pair, writer, stop.signal)).catch(() => undefined)
    }
    try {
      await work()
    } finally {
      stop.abort()
    }
  })
}

/** The mover dies again and again while writers write; in the end each transaction is on the target once. */
export async function killedChangesTrial(pair: ChangesPair, seed: number): Promise<void> {
  using scratch = new Scratch('changes')
  const dice = new Dice(seed)
  const state = scratch.join('state')
  const args = [...pair.ends, '--state', state, '--log-level', 'debug', '--parallel', '3']
  await besideWriters(pair, async () => {
    const at: string[] = []
    for (let start = 0; start < 6; start++) {
      const more = standsAt(state) === undefined ? [] : ['--resume']
      const moment =
        start === 0
          ? { line: /loaded a chunk/, nth: 1, afterMs: dice.roll(afterMsMax) }
          : { line, nth: 1 + dice.roll(passes), afterMs: dice.roll(afterMsMax) }
      const slowly = start === 0 ? ['--chunk', '64KiB'] : []
      const ran = await runMigrate([...args, ...slowly, '--until', 'never', ...more], moment)
      assert.equal(ran.code, 128, `${ran.out}${ran.said}`)
      at.push(standsAt(state) ?? 'new')
      if (start === 2) await pair.writeLarge()
      if (start === 3) await pair.define?.()
    }
    assert.ok(at.includes('changing'), at.join())
  })
  const ended = migratedOf(await runMigrate([...args, '--resume', '--until', 'caught-up']))
  assert.deepEqual(
    ended.findings.filter(({ code }) => code === 'conflicts-settled'),
    [],
  )
  await pair.same()
}

/** Beside writers it comes to an end by itself; what was there when it was asked is there, and then stops being carried. */
export async function caughtUpTrial(pair: ChangesPair): Promise<void> {
  using scratch = new Scratch('changes')
  const args = [...pair.ends, '--state', scratch.join('state'), '--log-level', 'debug']
  await besideWriters(pair, async () => {
    // Stopped in good order, it goes on where it was.
    const moment = { line: /applies changes/, nth: 1, afterMs: 1000, how: 'SIGINT' } as const
    const stopped = await runMigrate([...args, '--until', 'never'], moment)
    assert.equal(stopped.code, 130, stopped.said)
    assert.equal(standsAt(scratch.join('state')), 'changing')
    await pair.writeLarge()
  })
  const ended = migratedOf(await runMigrate([...args, '--resume', '--until', 'caught-up']))
  assert.ok(ended.changes && ended.changes.transactions > 0)
  await pair.same()
}

/** The target dies while changes come: it is waited for, and nothing is lost or comes twice. */
export async function lostTargetOfChangesTrial(pair: ChangesPair): Promise<void> {
  using scratch = new Scratch('changes')
  const args = [...pair.ends, '--state', scratch.join('state'), '--log-level', 'debug']
  await besideWriters(pair, async () => {
    // Behind the loss it reads on, for a while.
    const moment = { line: /reads changes behind/, nth: 2, afterMs: 1000, how: 'SIGINT' } as const
    const running = runMigrate([...args, '--until', 'never'], moment)
    const untilMs = performance.now() + 600_000
    while (!(await pair.applies())) {
      assert.ok(performance.now() < untilMs, 'no change comes')
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    await pair.loseTarget()
    const stopped = await running
    assert.equal(stopped.code, 130, stopped.said)
  })
  migratedOf(await runMigrate([...args, '--resume', '--until', 'caught-up']))
  await pair.same()
}
