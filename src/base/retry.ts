import { Fault } from './faults.ts'
import { systemTime, type Time } from './time.ts'

export type RetryPolicy = {
  /** Tries in all, the first one included. */
  readonly triesMax: number
  readonly firstDelayMs: number
  readonly delayMaxMs: number
  readonly time?: Time | undefined
  readonly random?: (() => number) | undefined
  /** Called before each wait. */
  readonly onRetry?: ((error: Fault, tries: number, delayMs: number) => void) | undefined
}

export const defaultRetry: RetryPolicy = { triesMax: 8, firstDelayMs: 100, delayMaxMs: 10_000 }

/**
 * Runs `work` until it succeeds, fails with a Fault that is not for retrying, or the tries are used up.
 * Delays double, each with full jitter over its upper half.
 */
export async function retry<T>(
  policy: RetryPolicy,
  signal: AbortSignal | undefined,
  work: (tries: number) => Promise<T>,
): Promise<T> {
  const { time = systemTime, random = Math.random } = policy
  for (let tries = 1; ; tries++) {
    signal?.throwIfAborted()
    try {
      return await work(tries)
    } catch (error) {
      if (!(error instanceof Fault) || error.recovery !== 'retry' || tries >= policy.triesMax)
        throw error
      const ceiling = Math.min(policy.delayMaxMs, policy.firstDelayMs * 2 ** (tries - 1))
      const delayMs = ceiling * (0.5 + random() / 2)
      policy.onRetry?.(error, tries, delayMs)
      await time.sleep(delayMs, signal)
    }
  }
}
