import type { LogBeat, LogBlock, Position } from '#change'

const marksMax = 4096

type Mark = { readonly history: string; readonly at: string; readonly seenMs: number }

/**
 * How old the newest recoverable moment is. `seen` notes when the source was heard of and how far its log reached then;
 * `lagMs` is the time since the last moment of which everything is durable. An idle source that is heard of has no lag;
 * a source that is silent has a growing one.
 */
export class LagMeter {
  #marks: Mark[] = []
  #coveredMs: number
  #durable: Position | undefined

  constructor(nowMs: number) {
    this.#coveredMs = nowMs
  }

  seen(item: LogBlock | LogBeat, nowMs: number): void {
    const at = item.kind === 'block' ? item.next : item.at
    this.#marks.push({ history: item.history, at, seenMs: nowMs })
    this.#settle()
    // Under a long outage the marks thin out: every second one goes, and the lag stays right to one mark's distance.
    if (this.#marks.length > marksMax)
      this.#marks = this.#marks.filter((_, index) => index % 2 === 1)
  }

  durable(position: Position): void {
    this.#durable = position
    this.#settle()
  }

  lagMs(nowMs: number): number {
    return Math.max(0, nowMs - this.#coveredMs)
  }

  /** Drops the marks that are covered; one of an older history is, once a newer history is durable. */
  #settle(): void {
    const durable = this.#durable
    if (!durable) return
    const last = this.#marks.findLastIndex(
      (mark) => mark.history === durable.history && mark.at <= durable.at,
    )
    const covered = this.#marks[last]
    if (!covered) return
    this.#coveredMs = covered.seenMs
    this.#marks = this.#marks.slice(last + 1)
  }
}
