import { assert } from './faults.ts'

/**
 * A bounded hand-over from producers to one consumer, counted in bytes (or any weight).
 * `push` waits while the queue is over its limit: that is the back-pressure.
 */
export class Queue<T> implements AsyncIterable<T> {
  readonly #limit: number
  readonly #items: { value: T; weight: number }[] = []
  #weight = 0
  #end: { error?: unknown } | undefined
  #readers: (() => void)[] = []
  #writers: (() => void)[] = []

  constructor(limit: number) {
    assert(limit > 0, 'a queue has a positive limit')
    this.#limit = limit
  }

  /** The weight of what waits. */
  get depth(): number {
    return this.#weight
  }

  /** Adds an item; one that is heavier than the limit passes alone. */
  async push(value: T, weight: number, signal?: AbortSignal): Promise<void> {
    while (this.#weight > 0 && this.#weight + weight > this.#limit && !this.#end) {
      await wait(this.#writers, signal)
    }
    if (this.#end) {
      if (this.#end.error !== undefined) throw this.#end.error
      return
    }
    this.#items.push({ value, weight })
    this.#weight += weight
    wake(this.#readers)
  }

  /** No more items: the consumer ends after what is queued, or throws `error` after it. */
  end(error?: unknown): void {
    this.#end ??= error === undefined ? {} : { error }
    wake(this.#readers)
    wake(this.#writers)
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, void> {
    try {
      for (;;) {
        const item = this.#items.shift()
        if (item) {
          this.#weight -= item.weight
          wake(this.#writers)
          yield item.value
        } else if (this.#end) {
          if (this.#end.error !== undefined) throw this.#end.error
          return
        } else {
          await wait(this.#readers)
        }
      }
    } finally {
      this.end()
    }
  }
}

function wait(list: (() => void)[], signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted()
  return new Promise((resolve, reject) => {
    const abort = () => {
      list.splice(list.indexOf(done), 1)
      reject(signal?.reason)
    }
    const done = () => {
      signal?.removeEventListener('abort', abort)
      resolve()
    }
    signal?.addEventListener('abort', abort, { once: true })
    list.push(done)
  })
}

function wake(list: (() => void)[]): void {
  for (const done of list.splice(0)) done()
}
