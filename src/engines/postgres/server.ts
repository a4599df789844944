import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { chown, open, readFile, stat } from 'node:fs/promises'
import { createServer } from 'node:net'
import path from 'node:path'
import { Fault } from '#base/faults'
import { mortal } from '#base/mortal'
import { systemTime } from '#base/time'
import { readOptional } from './layout.ts'
import { parseLsn } from './lsn.ts'
import type { Programs } from './programs.ts'
import type { Owner } from './wal-supply.ts'

const pollMs = 50
const logTailBytes = 3000
const stopMaxMs = 60_000

export type StartOptions = {
  readonly programs: Programs
  readonly dataDir: string
  readonly settings: Readonly<Record<string, string>>
  readonly logFile: string
  readonly owner: Owner | undefined
  /** It is made to run on without us; any other ends with this process, whatever ends that. */
  readonly outlives: boolean
}

/** A server process that we started. */
export class StartedServer {
  readonly #child: ChildProcess
  readonly #logFile: string
  readonly #ended: Promise<void>
  #startFailure: Error | undefined

  private constructor(child: ChildProcess, logFile: string) {
    this.#child = child
    this.#logFile = logFile
    this.#ended = new Promise((resolve) => {
      child.once('exit', () => resolve())
      child.once('error', (error) => {
        this.#startFailure = error
        resolve()
      })
    })
  }

  static async start(options: StartOptions): Promise<StartedServer> {
    const { programs, dataDir, settings, logFile, owner } = options
    const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
    const log = openSync(logFile, 'a', 0o600)
    if (owner) await chown(logFile, owner.uid, owner.gid)
    const command = [path.join(programs.folder, 'postgres'), '-D', dataDir, ...flags] as const
    const [program, args] = options.outlives ? [command[0], command.slice(1)] : mortal(command)
    const child = spawn(program, args, {
      cwd: dataDir,
      stdio: ['ignore', log, log],
      // What was loaded into us is not meant for the node that its restore_command starts.
      env: { ...process.env, NODE_OPTIONS: '' },
      // It outlives us where it is meant to, and Ctrl-C at our terminal is not meant for it.
      detached: true,
      ...owner,
    })
    closeSync(log)
    return new StartedServer(child, logFile)
  }

  get pid(): number | undefined {
    return this.#child.pid
  }

  get running(): boolean {
    const { exitCode, signalCode, pid } = this.#child
    return pid !== undefined && exitCode === null && signalCode === null && !this.#startFailure
  }

  /** Lets the server run on when we end. */
  release(): void {
    this.#child.unref()
  }

  /** Waits until `ready` says so; a server that ended meanwhile is a Fault with the end of its log. */
  async until(ready: () => Promise<boolean>, signal: AbortSignal): Promise<void> {
    while (!(await ready())) {
      signal.throwIfAborted()
      if (!this.running) throw await this.failure('start the restored server: it ended')
      await systemTime.sleep(pollMs, signal)
    }
  }

  async failure(doing: string): Promise<Fault> {
    const said = await this.logTail()
    const cause = this.#startFailure ? { cause: this.#startFailure } : {}
    return new Fault('engine', `${doing}; its log says: ${said}`, cause)
  }

  /** The end of the server's log, the lines that say why first. */
  async logTail(): Promise<string> {
    const { size } = await stat(this.#logFile)
    await using file = await open(this.#logFile)
    const from = Math.max(0, size - logTailBytes)
    const { buffer, bytesRead } = await file.read(Buffer.alloc(logTailBytes), 0, logTailBytes, from)
    const lines = buffer.toString('utf8', 0, bytesRead).trim().split('\n')
    const telling = lines.filter((line) => /FATAL|PANIC|ERROR|HINT|DETAIL/.test(line))
    return (telling.length > 0 ? telling : lines).slice(-6).join('; ')
  }

  /** Ends the server: cleanly, or at once. */
  async stop(how: 'fast' | 'immediate'): Promise<void> {
    if (!this.running) return
    this.#child.kill(how === 'fast' ? 'SIGINT' : 'SIGQUIT')
    const timer = setTimeout(() => this.#child.kill('SIGQUIT'), stopMaxMs)
    await this.#ended
    clearTimeout(timer)
  }
}

/**
 * Whether the server takes connections, by what it writes of itself: the eighth line of postmaster.pid, which pg_ctl goes
 * by too. Asking over a connection would need a password, and fill the server's log with refusals.
 */
export async function isReady(dataDir: string): Promise<boolean> {
  const text = (await readOptional(path.join(dataDir, 'postmaster.pid'))) ?? ''
  return text.split('\n')[7]?.trim() === 'ready'
}

/** A loopback port that is free now. */
export async function freePort(): Promise<number> {
  const server = createServer()
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  server.once('error', reject)
  server.listen(0, '127.0.0.1', () => {
    const address = server.address()
    server.close(() =>
      typeof address === 'object' && address
        ? resolve(address.port)
        : reject(new Fault('io', 'find a free port')),
    )
  })
  return promise
}

export async function isFree(port: number): Promise<boolean> {
  const server = createServer()
  const { promise, resolve } = Promise.withResolvers<boolean>()
  server.once('error', () => resolve(false))
  server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  return promise
}

/** Where the recovery ended: the last line of the history file of the timeline that it began. */
export async function recoveryEnd(
  dataDir: string,
): Promise<{ readonly timeline: number; readonly from: number; readonly lsn: bigint } | undefined> {
  const { readdir } = await import('node:fs/promises')
  const names = await readdir(path.join(dataDir, 'pg_wal'))
  const last = names
    .filter((name) => /^[0-9A-F]{8}\.history$/.test(name))
    .toSorted()
    .at(-1)
  if (last === undefined) return undefined
  const text = await readFile(path.join(dataDir, 'pg_wal', last), 'utf8')
  const line = text.trim().split('\n').at(-1) ?? ''
  const [from = '', lsn = ''] = line.trim().split(/\s+/)
  return { timeline: Number.parseInt(last, 16), from: Number(from), lsn: parseLsn(lsn) }
}
