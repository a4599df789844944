import { type Fault, isFault } from '#base/faults'
import type { Log } from '#base/log'
import { defaultRetry } from '#base/retry'
import type { Time } from '#base/time'
import type { Position } from '#change'
import type { ApplyTarget, ConflictPolicy } from '#change/apply'
import type { ChangeSource } from '#change/batch'
import type { Selection } from '#change/schema'
import { closing } from './closing.ts'
import type { FlowMeter } from './flow.ts'
import { ChangePass, ReadAgain } from './pass.ts'
import type { Since } from './since.ts'
import type { Throttle } from './throttle.ts'
import { Ending, type Until } from './until.ts'

/** Batches are bounded by both: the larger, the cheaper a row; the smaller, the sooner it is there. */
const batchRowsMax = 10_000
const batchBytesMax = 4 * 2 ** 20
/** An end that does not come back within so long ends the link: `--resume` goes on. */
const lostMaxMs = 300_000

export type ChangesWork = {
  readonly source: ChangeSource
  readonly target: ApplyTarget
  /** Names the link on both ends. */
  readonly link: string
  readonly selection: Pick<Selection, 'accepts' | 'map'>
  readonly since: Since
  readonly until: Until
  readonly conflicts: ConflictPolicy
  readonly parallel: number
  /** A folder of the link's own. */
  readonly directory: string
  readonly throttle: Throttle | undefined
  readonly meter: FlowMeter
  /** A change did not meet the source's row, and was settled. */
  readonly onConflict: () => void
  /** The copy has a change whose cascade no log tells, and tables that were copied before it may lack the cascade. */
  readonly onHiddenCascade: () => void
  readonly time: Time
  readonly log: Log
  readonly signal: AbortSignal
  /** Smaller batches, for tests. */
  readonly batchRowsMax?: number | undefined
}

/**
 * Carries what changes in a source to a target until the end that was asked for, each transaction once. When an end is lost,
 * both are opened again: the marks on the target tell where to go on, as they do after a kill.
 */
export async function carryChanges(work: ChangesWork): Promise<void> {
  const { time, log, signal, meter } = work
  const ends = new Map<string, Position>()
  let lostAtMs: number | undefined
  let tries = 0
  for (;;) {
    const before = meter.flow.transactions
    try {
      return await carryOnce(work, ends)
    } catch (error) {
      if (error instanceof ReadAgain) continue
      if (signal.aborted || !isFault(error) || error.recovery !== 'retry') throw error
      const nowMs = time.monotonicMs()
      if (meter.flow.transactions > before) {
        tries = 0
        lostAtMs = undefined
      }
      lostAtMs ??= nowMs
      if (nowMs - lostAtMs > lostMaxMs) throw error
      const delayMs = Math.min(defaultRetry.delayMaxMs, defaultRetry.firstDelayMs * 2 ** tries)
      tries += 1
      tell(log, error, delayMs)
      await time.sleep(delayMs, signal)
    }
  }
}

function tell(log: Log, error: Fault, delayMs: number): void {
  log.warn(`goes on with the changes in ${delayMs} ms: ${error.message}`, { code: error.code })
}

async function carryOnce(work: ChangesWork, ends: Map<string, Position>): Promise<void> {
  const { source, target, link, selection, since, conflicts, parallel, log, signal } = work
  const openApply = { link, lanes: parallel, selection, conflicts, log, signal }
  await closing(await target.openApply(openApply), log, async (applier) => {
    const mark = (await applier.applied({ signal })) ?? { low: since.start, beyond: [] }
    const ending = new Ending(work.until, work.time.monotonicMs())
    const reader = await source.openChanges({
      name: link,
      after: mark.low,
      selection,
      batchRowsMax: work.batchRowsMax ?? batchRowsMax,
      batchBytesMax,
      directory: work.directory,
      log,
      signal,
    })
    log.info(`reads changes behind ${mark.low.at}`, { beyond: mark.beyond.length })
    await closing(reader, log, () =>
      new ChangePass(work, { applier, reader, mark, ending, ends }).run(),
    )
  })
}
