import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { Fault } from '#base/faults'
import { mortal } from '#base/mortal'
import { systemTime } from '#base/time'

const asRoot = process.getuid?.() === 0
const readyMaxMs = 300_000
const endMaxMs = 120_000

/** Database servers refuse root, and none needs it: as root they run as the user that owns nothing. */
export function unprivileged(command: readonly string[]): [program: string, args: string[]] {
  const nobody = ['--reuid=nobody', '--regid=nogroup', '--clear-groups']
  return mortal(command, asRoot ? nobody : [])
}

/** Runs a program without root to its end; what it said is in the error. */
export function runUnprivileged(command: readonly string[]): void {
  const [program, args] = unprivileged(command)
  const done = spawnSync(program, args, { encoding: 'utf8', cwd: '/', env: serverEnv() })
  if (done.status === 0) return
  const said = `${done.stdout ?? ''}${done.stderr ?? ''}`.trim().slice(-3000)
  throw new Fault('io', `run ${command[0]}: ended with ${done.status ?? done.signal}: ${said}`, {
    cause: done.error,
  })
}

/** Whether a server without root can start that program. */
export function isReachable(file: string): boolean {
  if (!asRoot) return existsSync(file)
  const [program, args] = unprivileged(['test', '-x', file])
  return spawnSync(program, args, { cwd: '/' }).status === 0
}

/** Gives a folder to the servers' user. */
export function handOver(folder: string): void {
  if (asRoot) spawnSync('chown', ['-R', 'nobody:nogroup', folder])
}

/** A database server of the story: ended with it, whatever happens. */
export class ServerChild {
  readonly pid: number
  readonly #child: ChildProcess
  readonly #ended: Promise<void>
  readonly #logFile: string
  readonly #onExit = () => void this.#child.kill('SIGKILL')

  constructor(command: readonly string[], logFile: string) {
    const [program, args] = unprivileged(command)
    const log = openSync(logFile, 'a')
    this.#logFile = logFile
    this.#child = spawn(program, args, {
      stdio: ['ignore', log, log],
      cwd: '/',
      env: serverEnv(),
      // Ctrl-C at the terminal is the story's, which then ends its servers in order.
      detached: true,
    })
    closeSync(log)
    this.#ended = new Promise((resolve) => {
      this.#child.once('exit', () => resolve()).once('error', () => resolve())
    })
    this.pid = this.#child.pid ?? -1
    process.on('exit', this.#onExit)
  }

  get running(): boolean {
    return this.pid > 0 && this.#child.exitCode === null && this.#child.signalCode === null
  }

  /** Waits until the server answers; throws with the end of its log when it does not. */
  async untilReady(answers: () => Promise<boolean>, signal: AbortSignal): Promise<void> {
    const untilMs = systemTime.monotonicMs() + readyMaxMs
    while (!(await answers())) {
      if (!this.running || systemTime.monotonicMs() > untilMs) {
        const said = readFileSync(this.#logFile, 'utf8').trim().slice(-1500)
        throw new Fault('io', `start a server: it does not answer: ${said}`)
      }
      await systemTime.sleep(50, signal)
    }
  }

  /** Ends it with the signal and waits; SIGKILL when it takes too long. */
  async end(signal: NodeJS.Signals): Promise<void> {
    if (this.running) {
      this.#child.kill(signal)
      const timer = setTimeout(() => void this.#child.kill('SIGKILL'), endMaxMs)
      await this.#ended
      clearTimeout(timer)
    }
    process.off('exit', this.#onExit)
  }
}

/** A free loopback port below the range from which the system takes the ports of outgoing connections. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < 100; tries++) {
    const port = 21_000 + Math.floor(Math.random() * 11_000)
    const probe = createServer()
    const free = await new Promise<boolean>((resolve) => {
      probe.once('error', () => resolve(false))
      probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)))
    })
    if (free) return port
  }
  throw new Fault('io', 'find a free port: none between 21000 and 32000')
}

/** Nothing of the caller's own settings: a PGDATA or a MYSQL_HOME would lead a server astray. */
function serverEnv(): NodeJS.ProcessEnv {
  return { PATH: process.env['PATH'], LANG: 'C.UTF-8', HOME: '/nonexistent' }
}
