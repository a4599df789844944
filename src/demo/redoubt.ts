import { spawn, type ChildProcessByStdio } from 'node:child_process'
import path from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { Fault } from '#base/faults'
import { mortal } from '#base/mortal'
import { systemTime } from '#base/time'

type ChildProcess = ChildProcessByStdio<null, Readable, Readable>

/** Everything that is waited for takes seconds; a machine that is busy otherwise may take ten times as long. */
const waitMaxMs = 300_000
/** A protection that is asked to stop ships its tail first. */
const stopMaxMs = 60_000
/** How much the times of a commit and of its end may differ: whole seconds are the coarsest. */
const stampMs = 1000
const launcher = path.resolve(import.meta.dirname, '../../redoubt')

/** What `redoubt protect --json` says once a second, as far as the story needs it. */
export type ProtectNews = {
  readonly said: string
  /** When it was said, by the archiver's clock. */
  readonly timeMs: number
  /** Left out as long as it is not known. */
  readonly lagMs?: number | undefined
  readonly position?: { readonly at: string } | undefined
  readonly vaults: readonly { readonly durable?: string | undefined }[]
  readonly lastBase?: string | undefined
  /** Why the durability that was asked for is not had. */
  readonly degraded?: string | undefined
  readonly degradedSinceMs?: number | undefined
}

/** The command line, as a user types it: the story uses nothing that the reader cannot use too. */
export class Redoubt {
  readonly #env: NodeJS.ProcessEnv
  readonly #signal: AbortSignal

  constructor(env: NodeJS.ProcessEnv, signal: AbortSignal) {
    this.#env = env
    this.#signal = signal
  }

  /** Runs a command to its end and returns its JSON document; its own words are in the Fault when it fails. */
  async run(args: readonly string[]): Promise<unknown> {
    const child = this.#spawn(args)
    const [out, said, code] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      ending(child),
    ])
    this.#signal.throwIfAborted()
    if (code === 0) return out.trim() === '' ? undefined : (JSON.parse(out) as unknown)
    throw new Fault('engine', `run redoubt ${args[0]}: it ended with ${code}: ${said.trim()}`)
  }

  /** Starts `protect` and follows what it says until it is stopped. */
  protect(args: readonly string[]): Protection {
    return new Protection(this.#spawn(['protect', ...args]))
  }

  #spawn(args: readonly string[]): ChildProcess {
    const [program, all] = mortal([launcher, ...args, '--json'])
    return spawn(program, all, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...this.#env },
      // Ctrl-C at the terminal is the story's, which then ends its children in order.
      detached: true,
    })
  }
}

/** A running `redoubt protect`. */
export class Protection implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #ended: Promise<number | string>
  readonly #onExit = () => void this.#child.kill('SIGKILL')
  #news: ProtectNews | undefined
  #said = ''
  #wake = Promise.withResolvers<void>()

  constructor(child: ChildProcess) {
    this.#child = child
    this.#ended = ending(child)
    process.on('exit', this.#onExit)
    child.stderr.on('data', (chunk: Buffer) => {
      this.#said = `${this.#said}${chunk.toString()}`.slice(-2000)
    })
    createInterface({ input: child.stdout }).on('line', (line) => {
      this.#news = JSON.parse(line) as ProtectNews
      this.#wake.resolve()
      this.#wake = Promise.withResolvers<void>()
    })
  }

  get pid(): number {
    return this.#child.pid ?? -1
  }

  get news(): ProtectNews | undefined {
    return this.#news
  }

  /** Waits until what it says satisfies `enough`; throws its last words when it ends before. */
  async until(
    enough: (news: ProtectNews) => boolean,
    options: {
      readonly signal: AbortSignal
      readonly onNews?: ((news: ProtectNews) => void) | undefined
    },
  ): Promise<ProtectNews> {
    const ended = this.#ended.then((code) => ({ code }))
    const untilMs = systemTime.monotonicMs() + waitMaxMs
    for (;;) {
      options.signal.throwIfAborted()
      if (systemTime.monotonicMs() > untilMs) {
        const { said = 'nothing' } = this.#news ?? {}
        throw new Fault('timeout', `wait for redoubt protect: after ${waitMaxMs / 1000} s: ${said}`)
      }
      const news = this.#news
      if (news) options.onNews?.(news)
      if (news && enough(news)) return news
      // It speaks once a second; should it fall silent, the limits above still hold.
      const silence = systemTime.sleep(2000, options.signal)
      const end = await Promise.race([this.#wake.promise, ended, silence])
      if (!end) continue
      // Its streams may still hold the reason.
      await new Promise((resolve) => setImmediate(resolve))
      throw new Fault('engine', `run redoubt protect: it ended with ${end.code}: ${this.#said}`)
    }
  }

  /**
   * Waits until all that was committed before a time of this host's clock is in every vault, and all that was captured
   * with it. News may be read long after they were said: it counts what they say of the time they are of.
   */
  async untilShipped(
    beforeMs: number,
    options: { readonly signal: AbortSignal },
  ): Promise<ProtectNews> {
    let wanted: string | undefined
    return this.until(({ timeMs, lagMs = Number.POSITIVE_INFINITY, position, vaults }) => {
      if (timeMs - lagMs > beforeMs + stampMs) wanted ??= position?.at
      return vaults.every(({ durable }) => wanted !== undefined && (durable ?? '') >= wanted)
    }, options)
  }

  /** Ends it as a crash would. */
  async kill9(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#ended
  }

  /** Ends it as Ctrl-C would; returns the exit code, or the signal that it took. */
  async stop(): Promise<number | string> {
    this.#child.kill('SIGINT')
    const timer = setTimeout(() => void this.#child.kill('SIGKILL'), stopMaxMs)
    const ended = await this.#ended
    clearTimeout(timer)
    return ended
  }

  async [Symbol.asyncDispose](): Promise<void> {
    process.off('exit', this.#onExit)
    await this.stop()
  }
}

function ending(child: ChildProcess): Promise<number | string> {
  return new Promise((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('close', (code, signal) => resolve(code ?? signal ?? 'nothing'))
  })
}
