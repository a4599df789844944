import type { BaseRecord, LogSpan } from '#vault'

/** A vault that failed is tried again after so long, twice as long each time. */
const firstPauseMs = 500
const pauseMaxMs = 300_000

/** When the next base of each vault is due. */
export class BaseSchedule<Key> {
  readonly #everyMs: number
  readonly #turns = new Map<Key, { readonly dueMs: number; readonly failures: number }>()

  constructor(everyMs: number) {
    this.#everyMs = everyMs
  }

  has(key: Key): boolean {
    return this.#turns.has(key)
  }

  /** The newest base that opens the vault's window is of then; one is due at once where none does. */
  begin(key: Key, newestMs: number | undefined): void {
    const dueMs = newestMs === undefined ? -Infinity : newestMs + this.#everyMs
    this.#turns.set(key, { dueMs, failures: 0 })
  }

  failed(key: Key, nowMs: number): void {
    const failures = (this.#turns.get(key)?.failures ?? 0) + 1
    const pauseMs = Math.min(pauseMaxMs, firstPauseMs * 2 ** Math.min(failures - 1, 20))
    this.#turns.set(key, { dueMs: nowMs + pauseMs, failures })
  }

  /** No base of before leads up to now, whatever was known. */
  dueAtOnce(key: Key): void {
    this.begin(key, undefined)
  }

  due(nowMs: number): Key[] {
    return [...this.#turns].filter(([, turn]) => turn.dueMs <= nowMs).map(([key]) => key)
  }

  /** How long none will be due. */
  restMs(nowMs: number): number {
    return Math.min(...[...this.#turns.values()].map(({ dueMs }) => dueMs - nowMs))
  }
}

/** Whether a base opens the window that ends with this span, the one that is being captured. */
export function opens(base: Pick<BaseRecord, 'first'>, last: LogSpan): boolean {
  return base.first.history === last.history && base.first.at >= last.first
}

/** The newest base that does. */
export function newestOpening(
  bases: readonly BaseRecord[],
  last: LogSpan | undefined,
): BaseRecord | undefined {
  return last && bases.findLast((base) => opens(base, last))
}
