import { closeSync, openSync, readdirSync, readSync } from 'node:fs'
import path from 'node:path'
import { systemTime } from '#base/time'

type Sample = { readonly at: string; readonly ms: number }

const lookEveryMs = 10
/** How long the last of what was asked may take to come. */
const restMs = 3000

/** When the places of a source's log came to be in a vault on the local disk, seen from outside. */
export class LogWatch {
  readonly #folder: string
  readonly #known = new Set<string>()
  readonly #asked: Sample[] = []
  #durable: Sample[] = []

  constructor(vault: string, source: string) {
    this.#folder = path.join(vault, 'log', source)
    this.#look()
    this.#durable = []
  }

  get objects(): number {
    return this.#durable.length
  }

  /** Asks the server again and again where its log ends, while it is loaded and until that must have come. */
  async follow(readEnd: () => Promise<string>, isLoaded: () => boolean): Promise<void> {
    while (isLoaded()) {
      this.#asked.push({ at: await readEnd(), ms: performance.now() })
      this.#look()
      await systemTime.sleep(lookEveryMs)
    }
  }

  /** Looked for as often as before: else what was asked last would seem to have taken until the end of the pause. */
  async rest(): Promise<void> {
    for (const untilMs = performance.now() + restMs; performance.now() < untilMs; ) {
      this.#look()
      await systemTime.sleep(lookEveryMs)
    }
  }

  /** Notes objects that appeared, by the position behind their last byte: it stands in the age header, unencrypted. */
  #look(): void {
    for (const history of readdirSync(this.#folder).filter((name) => !name.startsWith('='))) {
      for (const name of readdirSync(path.join(this.#folder, history))) {
        if (!name.includes('.part.') || name.startsWith('.') || this.#known.has(name)) continue
        this.#known.add(name)
        const next = readNext(path.join(this.#folder, history, name))
        if (next) this.#durable.push({ at: next, ms: performance.now() })
      }
    }
  }

  /** How long each place took that was seen. */
  lagsMs(): number[] {
    return this.#asked
      .map(({ at, ms }) => ({ ms, seen: this.#durable.find((one) => one.at >= at)?.ms }))
      .flatMap(({ ms, seen }) => (seen === undefined ? [] : [Math.max(0, seen - ms)]))
  }

  get asked(): number {
    return this.#asked.length
  }
}

function readNext(file: string): string | undefined {
  const head = Buffer.alloc(16_384)
  const descriptor = openSync(file, 'r')
  const size = readSync(descriptor, head)
  closeSync(descriptor)
  const text = head.toString('latin1', 0, size)
  const body = /-> redoubt-log [^\n]+\n([A-Za-z0-9+/\n]+?)\n---/.exec(text)?.[1] ?? ''
  const record = Buffer.from(body.replaceAll('\n', ''), 'base64').toString()
  return /"next":"([0-9A-Fa-f.]+)"/.exec(record)?.[1]
}

/** Median, 99th percentile and greatest. */
export function figures(unsorted: readonly number[]) {
  const sorted = unsorted.toSorted((a, b) => a - b)
  const at = (share: number) =>
    Number((sorted[Math.floor((sorted.length - 1) * share)] ?? Number.NaN).toFixed(1))
  return { p50: at(0.5), p99: at(0.99), max: at(1) }
}
