import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

const asRoot = process.getuid?.() === 0

/** The user that servers run as when the tests run as root: PostgreSQL refuses root, and no server needs it. */
export const serverUser = asRoot ? { name: 'nobody', group: 'nogroup' } : undefined

/** Who owns caches of data folders: part of their names, since another user could not read them. */
export const serverUid = asRoot ? 65534 : (process.getuid?.() ?? 0)

/** A command line that drops root where there is root, and dies with its parent. */
export function asServerUser(command: readonly string[]): [string, string[]] {
  const user = serverUser
    ? [`--reuid=${serverUser.name}`, `--regid=${serverUser.group}`, '--clear-groups']
    : []
  return ['setpriv', [...user, '--pdeathsig', 'KILL', ...command]]
}

/** Runs a program as the servers' user to its end; its output is in the error when it fails. */
export function runAsServerUser(
  command: readonly string[],
  options: { readonly input?: string; readonly env?: NodeJS.ProcessEnv } = {},
): string {
  const [program, args] = asServerUser(command)
  const done = spawnSync(program, args, {
    input: options.input ?? '',
    env: { ...process.env, HOME: '/nonexistent', ...options.env },
    encoding: 'utf8',
    cwd: '/',
    maxBuffer: 64 * 1024 * 1024,
  })
  if (done.status === 0) return done.stdout
  const said = `${done.stdout}${done.stderr}`.slice(-2000)
  throw new Error(`${command[0]} ended with ${done.status ?? done.signal}: ${said}`, {
    cause: done.error,
  })
}

/** Gives a folder and all in it to the servers' user. */
export function giveToServerUser(folder: string): void {
  if (!serverUser) return
  const done = spawnSync('chown', ['-R', `${serverUser.name}:${serverUser.group}`, folder])
  if (done.status !== 0) throw new Error(`chown ${folder}: ${String(done.stderr)}`)
}

/** A long-running child with its output in a file. It never outlives this process. */
export class ServerProcess {
  readonly pid: number
  readonly #child: ChildProcess
  readonly #exited: Promise<void>

  constructor(command: readonly string[], logFile: string, env: NodeJS.ProcessEnv = {}) {
    const { LD_PRELOAD: preload, ...others } = env
    // What drops root must not load it: it would leave things behind that only root may open.
    const whole = preload === undefined ? command : ['env', `LD_PRELOAD=${preload}`, ...command]
    const [program, args] = asServerUser(whole)
    const log = openSync(logFile, 'a')
    this.#child = spawn(program, args, {
      stdio: ['ignore', log, log],
      cwd: '/',
      // A group of its own: Ctrl-C at the terminal is the test's business, not the server's.
      detached: true,
      env: { ...process.env, HOME: '/nonexistent', ...others },
    })
    closeSync(log)
    this.#exited = new Promise((resolve, reject) => {
      this.#child.once('exit', () => resolve())
      this.#child.once('error', reject)
    })
    // A failure to spawn is reported by whoever waits for the start.
    this.#exited.catch(() => undefined)
    this.pid = this.#child.pid ?? -1
    if (this.pid > 0) this.#child.unref()
  }

  get running(): boolean {
    return this.pid > 0 && this.#child.exitCode === null && this.#child.signalCode === null
  }

  /** How it ended, for messages. */
  get ending(): string {
    return String(this.#child.signalCode ?? this.#child.exitCode ?? 'running')
  }

  /** Asks it to end and waits; kills it when it does not within the limit. */
  async end(signal: NodeJS.Signals, limitMs = 300_000): Promise<void> {
    if (!this.running) return
    this.#child.kill(signal)
    const timer = setTimeout(() => void this.#child.kill('SIGKILL'), limitMs)
    try {
      await this.#keepingAlive(this.#exited)
    } finally {
      clearTimeout(timer)
    }
  }

  /** SIGKILL for it and its children, as when the machine's memory killer came by. */
  async kill9(): Promise<void> {
    if (!this.running) return
    const children = childrenOf(this.pid)
    this.#child.kill('SIGKILL')
    for (const pid of children) killIfThere(pid)
    await this.#keepingAlive(this.#exited)
    while (children.some(alive)) await delay(5)
  }

  /** The child is not referenced, so that a forgotten server does not hang a test; a wait for it must hold on. */
  async #keepingAlive(promise: Promise<void>): Promise<void> {
    this.#child.ref()
    try {
      await promise
    } finally {
      this.#child.unref()
    }
  }
}

/** Ends when `ready` says so; throws when the process ended before, or when the limit is over. */
export async function untilReady(
  server: ServerProcess,
  ready: () => Promise<boolean>,
  limitMs = 300_000,
): Promise<void> {
  const deadline = performance.now() + limitMs
  while (!(await ready())) {
    if (!server.running) throw new ServerEnded(`the server ended with ${server.ending}`)
    if (performance.now() > deadline) throw new Error(`the server was not ready in ${limitMs} ms`)
    await delay(20)
  }
}

/** The process ended before it was ready: a taken port, or a bad setting. */
export class ServerEnded extends Error {}

/** A free loopback port below the range from which the system takes the ports of outgoing connections. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < 100; tries += 1) {
    const port = 20_000 + Math.floor(Math.random() * 12_000)
    if (await isFree(port)) return port
  }
  throw new Error('no free port found between 20000 and 32000')
}

async function isFree(port: number): Promise<boolean> {
  const probe = createServer()
  const { promise, resolve } = Promise.withResolvers<boolean>()
  probe.once('error', () => resolve(false))
  probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)))
  return promise
}

/** Starts with a port of its own choice, again with another one when somebody took it in between. */
export async function withFreePort<T>(
  start: (port: number) => Promise<T>,
  portTaken: () => boolean,
): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await start(await freePort())
    } catch (error) {
      if (!(error instanceof ServerEnded) || !portTaken() || tries === 5) throw error
    }
  }
}

function childrenOf(parent: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => parentOf(pid) === parent)
}

function parentOf(pid: number): number | undefined {
  const stat = readOrNothing(`/proc/${pid}/stat`)
  // The name stands in parentheses and may hold anything; state and parent follow the last one.
  return stat ? Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) : undefined
}

function alive(pid: number): boolean {
  const stat = readOrNothing(`/proc/${pid}/stat`)
  return stat !== undefined && !stat.slice(stat.lastIndexOf(')') + 2).startsWith('Z')
}

function readOrNothing(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined // the process ended while we looked
  }
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}
