import { readFileSync } from 'node:fs'

/** A commit that the workload saw return: it happened between the two times. */
export type SeenCommit = {
  readonly n: number
  readonly startedMs: number
  readonly returnedMs: number
}

/** Reads the workload's file; a last line that was cut short was never synced and does not count. */
export function readOracle(file: string): SeenCommit[] {
  return parseOracle(readFileSync(file, 'utf8'))
}

export function parseOracle(text: string): SeenCommit[] {
  const whole = text.slice(0, text.lastIndexOf('\n') + 1)
  return whole
    .split('\n')
    .filter((line) => line !== '')
    .map((line, index) => {
      const [n = 0, startedMs = 0, returnedMs = 0] = line.split(' ').map(Number)
      if (n !== index + 1) throw new Error(`the oracle's line ${index + 1} is about order ${n}`)
      return { n, startedMs, returnedMs }
    })
}
