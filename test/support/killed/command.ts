import { type ChildProcess, spawn } from 'node:child_process'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import type { CrashMoment } from './storage.ts'

const main = path.resolve(import.meta.dirname, '../../../src/cli/main.ts')
const hooks = path.join(import.meta.dirname, 'hooks.ts')
/** What hangs is a failure, and must not hold up the rest; a busy machine is slow. */
const patienceMs = 600_000

export type Env = Readonly<Record<string, string>>

/** Where a command dies: at which operation of its stores, counted from 0. */
export type CrashAt = { readonly at: number; readonly moment: CrashMoment }

/** How a command ended. */
export type Ended = {
  /** Undefined when a signal ended it. */
  readonly code: number | undefined
  readonly killed: boolean
  readonly out: string
  readonly said: string
}

/** The command line in a process of its own, without the launcher, so that its pid is known at once. */
export function startCommand(args: readonly string[], env: Env, crash?: CrashAt): ChildProcess {
  const inherited = Object.entries(process.env).filter(([name]) => !/^(REDOUBT|PG|AWS)/.test(name))
  const how: Env = crash
    ? {
        NODE_OPTIONS: `--import=${hooks}`,
        REDOUBT_TEST_CRASH_AT: String(crash.at),
        REDOUBT_TEST_CRASH_MOMENT: crash.moment,
      }
    : {}
  return spawn(process.execPath, [main, ...args, '--json'], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...Object.fromEntries(inherited), ...how, ...env },
  })
}

/** Waits for a command's end; one that hangs is killed, and its end is not taken for a crash that was wanted. */
export async function ending(child: ChildProcess): Promise<Ended> {
  let hung = false
  const timer = setTimeout(() => {
    hung = true
    child.kill('SIGKILL')
  }, patienceMs)
  const ended = new Promise<{ code: number | null; signal: string | null }>((resolve, reject) => {
    child.once('error', reject).once('close', (code, signal) => resolve({ code, signal }))
  })
  const [out, said, { code, signal }] = await Promise.all([
    child.stdout ? text(child.stdout) : '',
    child.stderr ? text(child.stderr) : '',
    ended,
  ])
  clearTimeout(timer)
  if (hung) throw new Error(`a command did not end within ${patienceMs / 1000} s: ${said}`)
  return { code: code ?? undefined, killed: signal === 'SIGKILL', out, said }
}

/** Runs a command to its end, or to its death. */
export function runCommand(args: readonly string[], env: Env, crash?: CrashAt): Promise<Ended> {
  return ending(startCommand(args, env, crash))
}

/** Runs a command that must succeed, and returns the document that it printed. */
export async function succeed(args: readonly string[], env: Env): Promise<unknown> {
  const { code, out, said } = await runCommand(args, env)
  if (code !== 0) throw new Error(`redoubt ${args.join(' ')} ended with ${code}: ${said}${out}`)
  return out.trim() === '' ? undefined : JSON.parse(out)
}
