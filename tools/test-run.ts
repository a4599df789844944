import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'

const lookEveryMs = 1000

export type TestRun = {
  readonly args: readonly string[]
  readonly env: NodeJS.ProcessEnv
  /** A file that takes longer hangs: `--test-timeout` ends tests only, not what hangs before, between or behind them. */
  readonly fileLimitMs: number
  readonly say: (line: string) => void
}

/**
 * Runs `node --test` with these arguments to its end; true when all passed. The process of a file that hangs is killed and
 * named, so that it fails and the others go on. (Where there is no /proc, nobody looks.)
 */
export async function runTestFiles({ args, env, fileLimitMs, say }: TestRun): Promise<boolean> {
  const runner = spawn(process.execPath, ['--test', ...args], {
    stdio: ['ignore', 'inherit', 'inherit'],
    env,
  })
  const ended = once(runner, 'close')
  const seenMs = new Map<number, number>()
  const timer = setInterval(() => {
    for (const pid of childrenOf(runner.pid ?? -1)) {
      const sinceMs = seenMs.get(pid) ?? performance.now()
      seenMs.set(pid, sinceMs)
      if (performance.now() - sinceMs < fileLimitMs) continue
      const [file = pid] = commandOf(pid).slice(-1)
      say(`${file}: still running after ${Math.round(fileLimitMs / 1000)} s: ended`)
      process.kill(pid, 'SIGKILL')
      seenMs.delete(pid)
    }
  }, lookEveryMs)
  try {
    const [code] = (await ended) as [number | null]
    return code === 0
  } finally {
    clearInterval(timer)
  }
}

function childrenOf(parent: number): number[] {
  return namesIn('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      const stat = textOf(`/proc/${pid}/stat`)
      // The name stands in parentheses and may hold anything; state and parent follow the last one.
      const [state, ppid] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
      return state !== 'Z' && Number(ppid) === parent
    })
}

function commandOf(pid: number): string[] {
  return textOf(`/proc/${pid}/cmdline`)
    .split('\0')
    .filter((word) => word !== '')
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return [] // no such system
  }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return '' // the process ended while we looked
  }
}
