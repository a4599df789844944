import { Fault, isFault } from '#base/faults'
import type { ApplyLane, ConflictPolicy, Mark, WriteOptions, Written } from '#change/apply'
import type { RowRun, Truncation } from '#change/batch'
import { fromServer, type ServerError } from '../protocol/faults.ts'
import type { Wire } from '../protocol/wire.ts'
import { writeMark } from './marks.ts'
import { Pipeline } from './pipeline.ts'
import {
  eachChange,
  planChanges,
  type Prepared,
  type RowChange,
  type Step,
  truncateStep,
} from './plan.ts'
import { conflictFault, Settlement } from './settle.ts'
import { StepSender } from './steps.ts'

/** What is sent before answers are read: bounds what the server answers meanwhile. */
const statementsMax = 5000
/** Changes that are tried together once one of their kind was refused. */
const settledTogether = 200
const uniqueViolation = '23505'
const exclusionViolation = '23P01'
const notNullViolation = '23502'

/** What all lanes of an applier know together. */
export type Shared = {
  readonly link: string
  readonly epoch: bigint
  readonly conflicts: ConflictPolicy
  /** Of several lanes one may meet what another has not committed yet. */
  readonly several: boolean
  readonly prepared: Prepared
  /** Counts commits. */
  turn: bigint
  /** Rows had to make room for others: see `Settlement`. */
  displaced: boolean
}

/** Something did not meet what it should: which of the statements that were sent, and what the server said of it. */
export type Anomaly = { readonly change: RowChange | undefined; readonly error?: ServerError }

/** A session that writes changes; whatever is refused at first is tried again row by row. */
export class PostgresLane implements ApplyLane {
  readonly #wire: Wire
  readonly #pipe: Pipeline
  readonly #sender: StepSender
  readonly #index: number
  readonly #shared: Shared
  #open = false
  #hasSavepoint = false

  constructor(wire: Wire, index: number, shared: Shared) {
    this.#wire = wire
    this.#index = index
    this.#shared = shared
    this.#pipe = new Pipeline(wire)
    this.#sender = new StepSender(this.#pipe, shared)
  }

  async write(
    changes: readonly (RowRun | Truncation)[],
    { converge, alone, signal }: WriteOptions,
  ): Promise<Written> {
    const isReal = alone === true || !this.#shared.several
    const rows = changes.reduce((sum, change) => sum + ('rows' in change ? change.rows : 0), 0)
    try {
      const steps = planChanges(changes, this.#shared.prepared)
      const anomaly = await this.#attempt(steps, converge, signal)
      const conflicts = anomaly ? await this.#oneByOne(changes, { converge, isReal }, signal) : 0
      return { rows, conflicts }
    } catch (error) {
      await this.#drop(signal)
      throw error
    }
  }

  async commit(mark: Mark, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    const { link, epoch } = this.#shared
    this.#shared.turn += 1n
    const values = [String(this.#shared.turn), mark.low.history, mark.low.at]
    const rest = [JSON.stringify(mark.beyond), link, String(this.#index), String(epoch)]
    try {
      if (!this.#open) await this.#pipe.run('begin', [], signal)
      await this.#pipe.run(writeMark, [...values, ...rest], signal)
      await this.#pipe.run('commit', [], signal)
      const { failure, counts } = await this.#pipe.end(signal)
      const marked = counts.at(-2)
      this.#open = failure !== undefined
      this.#hasSavepoint = false
      if (failure?.sqlState === notNullViolation || (!failure && marked !== 1)) throw ousted(link)
      if (failure) throw fromServer(failure, `commit changes of link ${link}`)
    } catch (error) {
      await this.#drop(signal)
      throw error
    }
  }

  async rollback(): Promise<void> {
    await this.#drop(AbortSignal.timeout(rollbackMaxMs))
  }

  /** All steps, or nothing of them and why. */
  async #attempt(
    steps: readonly Step[],
    converge: boolean,
    signal: AbortSignal,
  ): Promise<Anomaly | undefined> {
    const opens = await this.#begin(signal)
    for (const step of steps) {
      for (const some of piecesOf(step)) {
        await this.#sender.send(some, converge, signal)
        if (this.#pipe.sent < statementsMax) continue
        const anomaly = await this.#check(signal)
        if (anomaly) return this.#undo(opens, anomaly, signal)
      }
    }
    const anomaly = await this.#check(signal)
    return anomaly && this.#undo(opens, anomaly, signal)
  }

  // The begin of a transaction is a place to go back to, too.
  async #begin(signal: AbortSignal): Promise<boolean> {
    const opens = !this.#open
    if (opens) await this.#sender.plain('begin', signal)
    else {
      if (this.#hasSavepoint) await this.#sender.plain('release savepoint before', signal)
      await this.#sender.plain('savepoint before', signal)
      this.#hasSavepoint = true
    }
    this.#open = true
    return opens
  }

  async #undo(opens: boolean, anomaly: Anomaly, signal: AbortSignal): Promise<Anomaly> {
    await this.#pipe.run(opens ? 'rollback' : 'rollback to savepoint before', [], signal)
    const { failure } = await this.#pipe.end(signal)
    if (failure) throw fromServer(failure, 'undo changes')
    if (opens) this.#open = false
    return anomaly
  }

  async #check(signal: AbortSignal): Promise<Anomaly | undefined> {
    const { counts, failure } = await this.#pipe.end(signal)
    const sent = this.#sender.taken()
    for (const [index, { expected, change }] of sent.entries()) {
      if (index >= counts.length) break
      if (expected !== undefined && counts[index] !== expected) return { change }
    }
    if (!failure) return undefined
    const at = sent[counts.length]
    const refused = failure.sqlState === uniqueViolation || failure.sqlState === exclusionViolation
    if (refused) return { change: at?.change, error: failure }
    throw fromServer(failure, `apply changes${at?.table ? ` to ${at.table.shown}` : ''}`)
  }

  async #oneByOne(
    changes: readonly (RowRun | Truncation)[],
    { converge, isReal }: { readonly converge: boolean; readonly isReal: boolean },
    signal: AbortSignal,
  ): Promise<number> {
    const { conflicts, prepared } = this.#shared
    const all = eachChange(changes, prepared)
    if (!isReal || (conflicts === 'stop' && !converge)) {
      const anomaly = await this.#attempt(inOrder(all, prepared), converge, signal)
      if (anomaly) throw conflictFault(anomaly)
      return 0
    }
    let settled = 0
    for (let at = 0; at < all.length; ) {
      const some = all.slice(at, at + settledTogether)
      const anomaly = await this.#attempt(inOrder(some, prepared), converge, signal)
      if (!anomaly) {
        at += some.length
        continue
      }
      const bad = some.findIndex((one) => one === anomaly.change)
      if (bad < 0 || !anomaly.change) throw conflictFault(anomaly)
      const before = await this.#attempt(inOrder(some.slice(0, bad), prepared), converge, signal)
      if (before) throw conflictFault(before)
      settled += await this.#settle(anomaly, converge, signal)
      at += bad + 1
    }
    return settled
  }

  async #settle(anomaly: Anomaly, converge: boolean, signal: AbortSignal): Promise<number> {
    await this.#begin(signal)
    const begun = await this.#check(signal)
    if (begun) throw conflictFault(begun)
    const settlement = new Settlement(this.#pipe, this.#sender, this.#shared, signal)
    return settlement.settle(anomaly, converge)
  }

  /** Nothing is open behind it: what cannot be rolled back in order is closed. */
  async #drop(signal: AbortSignal): Promise<void> {
    this.#sender.taken()
    this.#hasSavepoint = false
    const wasOpen = this.#open
    this.#open = false
    if (!this.#wire.alive) return
    if (this.#pipe.isBusy || signal.aborted) return this.#wire.close()
    if (!wasOpen) return
    try {
      await this.#pipe.run('rollback', [], signal)
      await this.#pipe.end(signal)
    } catch (error) {
      // The session ends, and with it what was open: that is all that was wanted.
      this.#wire.close()
      if (!isFault(error)) signal.throwIfAborted()
    }
  }
}

const rollbackMaxMs = 30_000

function* piecesOf(step: Step): Generator<Step, void, void> {
  if (step.kind !== 'single' || step.changes.length <= statementsMax) return yield step
  for (let at = 0; at < step.changes.length; at += statementsMax) {
    yield { ...step, changes: step.changes.slice(at, at + statementsMax) }
  }
}

function inOrder(
  changes: readonly (RowChange | Truncation)[],
  prepared: Prepared,
): readonly Step[] {
  const steps: Step[] = []
  for (const change of changes) {
    if (change.kind === 'truncate') {
      steps.push(truncateStep(change, prepared))
      continue
    }
    steps.push({ kind: 'single', table: change.table, changes: [change] })
  }
  return steps
}

function ousted(link: string): Fault {
  return new Fault('locked', `commit changes of link ${link}: another process has taken it over`, {
    hint: 'One process at a time may run a link.',
    recovery: 'stop',
  })
}
