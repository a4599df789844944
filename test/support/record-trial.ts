import { appendFileSync, mkdirSync } from 'node:fs'
import path from 'node:path'
import { home } from './servers/services.ts'

/** Adds one line of JSON about a trial to `bench/results/<name>.jsonl`, and prints it. */
export function recordTrial(name: string, trial: object): void {
  const folder = path.join(home, 'bench/results')
  mkdirSync(folder, { recursive: true })
  const line = JSON.stringify({ trial: name, time: new Date().toISOString(), ...trial })
  appendFileSync(path.join(folder, `${name}.jsonl`), `${line}\n`)
  process.stdout.write(`${line}\n`)
}
