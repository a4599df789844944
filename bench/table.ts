import { loadavg } from 'node:os'
import { formatSizeBytes } from '#base/bytes'
import type { Cost } from './measure.ts'

export type Run = {
  readonly step: string
  readonly tool: string
  readonly cost: Cost
  /** CPU that the server spent on it, milliseconds. */
  readonly serverMs?: number | undefined
  /** What the result takes. */
  readonly storedBytes?: number | undefined
}

/** Prints a run as one line of JSON. */
export function printRun(
  run: Run,
  command: readonly string[],
  hide: Readonly<Record<string, string>>,
): void {
  const { stdout: _stdout, ...cost } = run.cost
  const shown = Object.entries(hide).reduce(
    (text, [path, name]) => text.replaceAll(path, name),
    command.join(' '),
  )
  console.log(JSON.stringify({ ...run, cost, load: loadavg()[0], command: shown }))
}

/** Prints medians step by step, and each tool's ratio to `ours`. */
export function printTable(runs: readonly Run[], ours: string): void {
  console.log(
    '| step | tool | client CPU s | server CPU s | wall s | peak | stored | all CPU, wall against ours |',
  )
  console.log('|-|-|-|-|-|-|-|-|')
  for (const step of new Set(runs.map((run) => run.step))) {
    const tools = new Set(runs.filter((run) => run.step === step).map((run) => run.tool))
    const of = (tool: string, figure: (run: Run) => number) =>
      median(runs.filter((run) => run.step === step && run.tool === tool).map(figure))
    const all = (run: Run) => run.cost.cpuMs + (run.serverMs ?? 0)
    for (const tool of tools) {
      const seconds = (figure: (run: Run) => number) => (of(tool, figure) / 1000).toFixed(2)
      const ratio = (figure: (run: Run) => number) =>
        (of(tool, figure) / of(ours, figure)).toFixed(2)
      console.log(
        `| ${step} | ${tool} | ${seconds((r) => r.cost.cpuMs)} | ${seconds((r) => r.serverMs ?? 0)} | ` +
          `${seconds((r) => r.cost.wallMs)} | ${formatSizeBytes(of(tool, (r) => r.cost.peakBytes))} | ` +
          `${formatSizeBytes(of(tool, (r) => r.storedBytes ?? 0))} | ${ratio(all)}, ${ratio((r) => r.cost.wallMs)} |`,
      )
    }
  }
}

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[numbers.length >> 1] ?? 0
}
