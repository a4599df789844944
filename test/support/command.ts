import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import path from 'node:path'
import { text } from 'node:stream/consumers'

const launcher = path.resolve(import.meta.dirname, '../../redoubt')
/** No bad input may keep a user waiting longer than this, on a machine that does other things too. */
const patienceMs = 600_000

/** How a command ended. */
export type Ran = {
  /** The exit code; 128 and more for one that a signal ended. */
  readonly code: number
  readonly out: string
  readonly said: string
  readonly tookMs: number
}

/** What a command says of its failure on stdout with `--json`. */
export type SaidError = {
  readonly code: string
  readonly message: string
  readonly hint?: string | undefined
}

/** Runs `redoubt ARGS --json` as a user does, with nothing of the caller's own settings; killed when it hangs. */
export async function runCommand(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Ran> {
  const startedMs = performance.now()
  const inherited = Object.entries(process.env).filter(([name]) => !/^(REDOUBT|PG|AWS)/.test(name))
  const child = spawn(launcher, [...args, '--json'], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...Object.fromEntries(inherited), AWS_EC2_METADATA_DISABLED: 'true', ...env },
  })
  const timer = setTimeout(() => void child.kill('SIGKILL'), patienceMs)
  const ended = new Promise<number>((resolve, reject) => {
    child.once('error', reject).once('close', (code) => resolve(code ?? 128))
  })
  const [out, said, code] = await Promise.all([text(child.stdout), text(child.stderr), ended])
  clearTimeout(timer)
  return { code, out, said, tookMs: Math.round(performance.now() - startedMs) }
}

/** The error document that a failed command prints; undefined when it printed none. */
export function errorOf(ran: Ran): SaidError | undefined {
  const last = ran.out.trim().split('\n').at(-1) ?? ''
  if (!last.startsWith('{')) return undefined
  return (JSON.parse(last) as { readonly error?: SaidError }).error
}

/** Runs several jobs, two at a time: a command takes a processor for a third of a second. */
export async function twoAtATime<T, R>(
  items: readonly T[],
  run: (item: T) => Promise<R>,
): Promise<R[]> {
  const results: R[] = []
  let next = 0
  const worker = async () => {
    for (let index = next++; index < items.length; index = next++) {
      const item = items[index] as T
      results[index] = await run(item)
    }
  }
  await Promise.all([worker(), worker()])
  return results
}

/** The command did what it was told; returns its document. */
export function done(ran: Ran): unknown {
  assert.equal(ran.code, 0, `${ran.out}${ran.said}`)
  return ran.out === '' ? undefined : (JSON.parse(ran.out) as unknown)
}

/** Waits until a vault has so many bases of its one source: by what it holds, not by what a protection says of it. */
export async function untilBases(
  vault: string,
  count: number,
  env: Readonly<Record<string, string>>,
): Promise<void> {
  for (;;) {
    const args = ['window', '--vault', vault]
    const [report] = done(await runCommand(args, env)) as { readonly bases: readonly unknown[] }[]
    if ((report?.bases.length ?? 0) >= count) return
  }
}

/** A refusal in good form: the exit code, a document and a sentence that say what is wrong, and no stack. */
export function refused(ran: Ran, what: string, code: number, said: RegExp): SaidError {
  assert.equal(ran.code, code, `${what}: ${ran.out}${ran.said}`)
  const error = errorOf(ran)
  assert.ok(error, `${what}: no document on stdout: ${ran.out}`)
  assert.match(error.message, said, what)
  assert.match(ran.said, said, what)
  assert.doesNotMatch(ran.said, /defect|\n {4}at /, what)
  return error
}
