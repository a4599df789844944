import { setFlagsFromString } from 'node:v8'

/** Percent of the live heap that may be added before the next full collection. */
const growthMax = 300

/**
 * Lets the heap grow to several times its live size between full collections, until disposed. For a process that lives
 * long on a small heap while bytes pass through it slowly: V8 counts buffers with the heap, and would mark all of it for
 * every ten megabytes or so, which took a third of all that archiving a log costs (bench/log.ts). Not for work that itself
 * fills memory. One at a time.
 */
export function collectSeldom(): Disposable {
  setFlagsFromString(`--heap-growing-percent=${growthMax}`)
  return { [Symbol.dispose]: () => setFlagsFromString('--heap-growing-percent=0') }
}
