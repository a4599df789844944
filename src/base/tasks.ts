/** A group of concurrent work: see `tasks`. */
export interface Tasks {
  /** Aborts when a sibling fails, or when the outer signal aborts. */
  readonly signal: AbortSignal
  /** Starts work that the group owns; its result can be awaited inside the group. */
  run<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T>
}

/**
 * Structured concurrency: runs `body`, which starts work through `t.run`. The first failure aborts all
 * siblings; the call ends when everything has ended, with that first failure or with what `body` returned.
 */
export async function tasks<T>(
  signal: AbortSignal | undefined,
  body: (t: Tasks) => Promise<T>,
): Promise<T> {
  const abort = new AbortController()
  const inner = signal ? AbortSignal.any([signal, abort.signal]) : abort.signal
  const running = new Set<Promise<unknown>>()
  let failure: { error: unknown } | undefined
  const fail = (error: unknown) => {
    failure ??= { error }
    abort.abort(error)
  }
  const run = <R>(work: (signal: AbortSignal) => Promise<R>): Promise<R> => {
    const promise = Promise.resolve().then(() => {
      inner.throwIfAborted()
      return work(inner)
    })
    const owned: Promise<unknown> = promise.catch(fail).finally(() => running.delete(owned))
    running.add(owned)
    return promise
  }
  const result = await body({ signal: inner, run }).catch((error: unknown) => {
    fail(error)
    return undefined
  })
  while (running.size > 0) await Promise.all(running)
  if (failure) throw failure.error
  return result as T
}

/** Runs `work` for each item, at most `width` at a time; the first failure aborts the rest. */
export async function eachLimit<T>(
  items: Iterable<T> | AsyncIterable<T>,
  width: number,
  signal: AbortSignal | undefined,
  work: (item: T, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  await tasks(signal, async (t) => {
    const busy = new Set<Promise<unknown>>()
    for await (const item of items) {
      t.signal.throwIfAborted()
      const job: Promise<unknown> = t
        .run((inner) => work(item, inner))
        .finally(() => busy.delete(job))
      job.catch(() => undefined)
      busy.add(job)
      if (busy.size >= width) await Promise.race(busy)
    }
  })
}
