import type { LogBeat, LogBlock, Position } from '#change'

const marksMax = 4096

/** Up to `at`, the log was complete at `timeMs`. */
type Mark = { readonly history: string; readonly at: string; readonly timeMs: number }

/**
 * How old the newest recoverable moment is: now, less the latest time at which all that the source had is durable. That
 * time comes from the source's beats ("my log ended here then"), and, while it commits without a pause, from the times of
 * its commits. Log that arrives late is old by this measure, however fast it arrives; a source that is silent ages.
 */
export class LagMeter {
  #marks: Mark[] = []
  #coveredMs: number | undefined
  #durable: Position | undefined

  seen(item: LogBlock | LogBeat, nowMs: number): void {
    const last = item.kind === 'block' ? item.commits.at(-1) : item
    if (!last) return
    // A source whose clock is ahead knows no future.
    const timeMs = Math.min(Number(last.timeUs / 1000n), nowMs)
    this.#marks.push({ history: item.history, at: last.at, timeMs })
    this.#settle()
    // Under a long outage the marks thin out: every second one goes, and the lag stays right to one mark's distance.
    if (this.#marks.length > marksMax)
      this.#marks = this.#marks.filter((_, index) => index % 2 === 1)
  }

  durable(position: Position): void {
    this.#durable = position
    this.#settle()
  }

  /** Undefined as long as nothing that was seen is durable. */
  lagMs(nowMs: number): number | undefined {
    return this.#coveredMs === undefined ? undefined : Math.max(0, nowMs - this.#coveredMs)
  }

  /** Drops the marks that are covered; one of an older history is, once a newer history is durable. */
  #settle(): void {
    const durable = this.#durable
    if (!durable) return
    const last = this.#marks.findLastIndex(
      (mark) => mark.history === durable.history && mark.at <= durable.at,
    )
    if (last < 0) return
    const covered = this.#marks.splice(0, last + 1)
    // The newest of them, whatever the source's clock did in between.
    this.#coveredMs = covered.at(-1)?.timeMs ?? this.#coveredMs
  }
}
