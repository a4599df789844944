import { stripVTControlCharacters, styleText } from 'node:util'
import { formatSizeBytes } from '#base/bytes'
import { toJson } from '#base/log'
import type { Progress } from '#base/progress'

const redrawMs = 200
const plainMs = 10_000

/** Where results and progress go: documents to stdout; progress to stderr, as a bar where that is a terminal. */
export class Display {
  readonly json: boolean
  readonly #quiet: boolean

  constructor(options: { readonly json: boolean; readonly quiet: boolean }) {
    this.json = options.json
    this.#quiet = options.quiet
  }

  /** Prints the one result: the value itself as JSON, or what `render` makes of it for people. */
  result<T>(value: T, render: (value: T) => string): void {
    const text = this.json ? toJson(value, 2) : render(value)
    if (text !== '') process.stdout.write(`${text}\n`)
  }

  /** Prints one entry of a stream: a line of JSON, or `said`. */
  entry<T>(value: T, render: (value: T) => string): void {
    process.stdout.write(`${this.json ? toJson(value) : render(value)}\n`)
  }

  /** Writes a line beside the result, to stderr. */
  note(line: string): void {
    if (this.#quiet) return
    if (process.stderr.isTTY) process.stderr.write('\r\u001b[K')
    process.stderr.write(`${line}\n`)
  }

  /** Shows `progress` until the returned handle is disposed. */
  follow(progress: Progress): Disposable {
    if (this.#quiet) return { [Symbol.dispose]: () => undefined }
    const startedMs = performance.now()
    const bar = process.stderr.isTTY
    const draw = () => {
      const line = progressLine(progress, performance.now() - startedMs)
      process.stderr.write(bar ? `\r\u001b[K${fit(line)}` : `${line}\n`)
    }
    const timer = setInterval(draw, bar ? redrawMs : plainMs)
    timer.unref()
    return {
      [Symbol.dispose]: () => {
        clearInterval(timer)
        if (bar) process.stderr.write('\r\u001b[K')
      },
    }
  }
}

function fit(line: string): string {
  const width = (process.stderr.columns || 80) - 1
  return stripVTControlCharacters(line).length <= width ? line : line.slice(0, width)
}

/** `copy rows  ████████░░░░  42 %  1.20 GiB of 2.86 GiB  105 MiB/s  0:16 left  orders` */
export function progressLine(progress: Progress, elapsedMs: number): string {
  const { phase, doneBytes, totalBytes, doneItems, totalItems, current } = progress
  const seconds = Math.max(elapsedMs, 1) / 1000
  const rate = doneBytes / seconds
  const parts = [phase]
  const share = totalBytes ? Math.min(1, doneBytes / totalBytes) : undefined
  if (share !== undefined) parts.push(bar(share), `${Math.floor(share * 100)} %`)
  const size = formatSizeBytes(doneBytes)
  parts.push(totalBytes ? `${size} of ${formatSizeBytes(totalBytes)}` : size)
  if (doneItems > 0) parts.push(totalItems ? `${doneItems}/${totalItems}` : `${doneItems} items`)
  parts.push(`${formatSizeBytes(Math.round(rate))}/s`)
  if (totalBytes && rate > 0 && doneBytes < totalBytes) {
    parts.push(`${formatSpan(((totalBytes - doneBytes) / rate) * 1000)} left`)
  }
  if (current) parts.push(current)
  return parts.join('  ')
}

const barWidth = 20

function bar(share: number): string {
  const full = Math.round(share * barWidth)
  return '█'.repeat(full) + '░'.repeat(barWidth - full)
}

/** `0:07`, `12:34`, `1:02:03`. */
export function formatSpan(ms: number): string {
  const seconds = Math.round(ms / 1000)
  const two = (n: number) => String(n).padStart(2, '0')
  const hours = Math.floor(seconds / 3600)
  const minutes = Math.floor(seconds / 60) % 60
  return hours > 0
    ? `${hours}:${two(minutes)}:${two(seconds % 60)}`
    : `${minutes}:${two(seconds % 60)}`
}

/** Lines up rows of cells in columns; the first row is the head. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = []
  for (const row of rows) {
    for (const [column, cell] of row.entries()) {
      widths[column] = Math.max(widths[column] ?? 0, cell.length)
    }
  }
  const lines = rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  )
  return [strong(lines[0] ?? ''), ...lines.slice(1)].join('\n')
}

/** Bold where stdout is a terminal. */
export function strong(text: string): string {
  return process.stdout.isTTY ? styleText('bold', text) : text
}
