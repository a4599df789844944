import { availableParallelism } from 'node:os'
import { parseSizeBytes } from '#base/bytes'
import { Fault } from '#base/faults'
import type { Log } from '#base/log'
import { parseTimeUs } from '#base/time'
import type { Display } from './display.ts'

/** One option of a verb: parser, help page, manual and completion are all made from this. */
export type OptionSpec = {
  /** As commander writes it: `--vault <url>`, `-n, --dry-run`. */
  readonly flags: string
  readonly help: string
  /** May be given several times. */
  readonly many?: boolean | undefined
  readonly required?: boolean | undefined
  readonly default?: string | undefined
  /** All the values there are, for completion; `Input.choice` refuses others. */
  readonly choices?: readonly string[] | undefined
  /** An empty value has a meaning of its own; elsewhere it is refused: an unset variable in a script. */
  readonly mayBeEmpty?: boolean | undefined
}

/** More sessions than a server of any size gains from; most refuse so many connections. */
export const sessionsMax = 64
/** On each of two sides when nothing is said: as many as cores, and no more than both servers bear beside their work. */
const sessionsOfSideMax = 4

export const baseForms = ['physical', 'logical'] as const

/** Exit code of a verb that was done and found something. */
export const exitFindings = 3

/** What a verb gets to work with. */
export type Context = {
  readonly signal: AbortSignal
  readonly display: Display
  readonly log: Log
  readonly env: Readonly<Record<string, string | undefined>>
}

/** One verb of the command line: a file of its own in this folder. */
export type Verb = {
  readonly name: string
  readonly summary: string
  /** Operands, as commander writes them: `<url>`, `[dir...]`. */
  readonly operands?: string | undefined
  /** What the first operand may be, for completion. */
  readonly operandChoices?: readonly string[] | undefined
  readonly options: readonly OptionSpec[]
  readonly examples: readonly (readonly [command: string, meaning: string])[]
  /** Returns the exit code when it is not 0. */
  run(input: Input, context: Context): Promise<number | undefined>
}

/** A verb with verbs below it: `vault check`. */
export type VerbGroup = {
  readonly name: string
  readonly summary: string
  readonly verbs: readonly Verb[]
}

/** What the user typed for one verb; the readers refuse nonsense with a `usage` Fault that names option and value. */
export class Input {
  readonly operands: readonly string[]
  readonly #values: Readonly<Record<string, unknown>>

  constructor(operands: readonly string[], values: Readonly<Record<string, unknown>>) {
    this.operands = operands
    this.#values = values
  }

  text(name: string): string | undefined {
    const value = this.#values[camel(name)]
    return typeof value === 'string' ? value : undefined
  }

  required(name: string): string {
    const value = this.text(name)
    if (value === undefined) throw new Fault('usage', `read the options: --${name} is missing`)
    return value
  }

  list(name: string): readonly string[] {
    const value = this.#values[camel(name)]
    if (Array.isArray(value)) return value.map(String)
    return typeof value === 'string' ? [value] : []
  }

  flag(name: string): boolean {
    return this.#values[camel(name)] === true
  }

  choice<T extends string>(name: string, choices: readonly T[]): T | undefined {
    const value = this.text(name)
    if (value === undefined) return undefined
    const found = choices.find((choice) => choice === value)
    if (found) return found
    throw new Fault('usage', `read --${name}: '${value}' is not one of ${choices.join(', ')}`)
  }

  /** A whole number from 1 to `max`. */
  count(name: string, max: number): number | undefined {
    const value = this.text(name)
    if (value === undefined) return undefined
    const count = /^\d{1,9}$/.test(value) ? Number(value) : 0
    if (count >= 1 && count <= max) return count
    throw new Fault('usage', `read --${name}: '${value}' is not a whole number from 1 to ${max}`)
  }

  /** `--parallel` of a verb with two sides: sessions on each. */
  sessionsOfSide(): number {
    return (
      this.count('parallel', sessionsMax) ?? Math.min(sessionsOfSideMax, availableParallelism())
    )
  }

  sizeBytes(name: string): number | undefined {
    const value = this.text(name)
    if (value === undefined) return undefined
    const size = parseSizeBytes(value.replace(/\/s$/, ''))
    if (size !== undefined && size > 0) return size
    throw new Fault('usage', `read --${name}: '${value}' is not a size such as 50MB or 64MiB`)
  }

  durationMs(name: string): number | undefined {
    const value = this.text(name)
    return value === undefined ? undefined : parseDurationMs(name, value)
  }

  timeUs(name: string): bigint | undefined {
    const value = this.text(name)
    if (value === undefined) return undefined
    const time = parseTimeUs(value)
    if (time !== undefined) return time
    throw new Fault('usage', `read --${name}: '${value}' is not a time`, {
      hint: 'Write it as 2026-03-01T12:30:05.250Z; without a zone it is UTC.',
    })
  }
}

const unitMs: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
}

function parseDurationMs(name: string, text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text)
  const ms = Number(match?.[1]) * (unitMs[match?.[2] ?? ''] ?? Number.NaN)
  if (Number.isFinite(ms) && ms > 0) return ms
  throw new Fault('usage', `read --${name}: '${text}' is not a duration such as 30s, 15m or 24h`)
}

function camel(name: string): string {
  return name.replace(/-([a-z0-9])/g, (_match, letter: string) => letter.toUpperCase())
}
