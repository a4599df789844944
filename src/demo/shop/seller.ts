import { type ChildProcessByStdio, spawn } from 'node:child_process'
import path from 'node:path'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { Fault } from '#base/faults'

const program = path.join(import.meta.dirname, 'workload.ts')

/** The workload's process: it sells until the database is gone, or until it is stopped. */
export class Seller implements AsyncDisposable {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>
  readonly #ended: Promise<void>
  readonly #opened = Promise.withResolvers<void>()
  #committed = 0
  #said = ''

  constructor(url: string, oracle: string, ordersPerSecond: number) {
    const args = [program, oracle, String(ordersPerSecond)]
    this.#child = spawn(process.execPath, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      // Not as an argument: it holds a password, and arguments are for all to see.
      env: { ...process.env, SHOP_URL: url },
      detached: true,
    })
    this.#ended = new Promise((resolve) => {
      this.#child.once('error', () => resolve()).once('close', () => resolve())
    })
    this.#child.stderr.on('data', (chunk: Buffer) => {
      this.#said = `${this.#said}${chunk.toString()}`.slice(-2000)
    })
    createInterface({ input: this.#child.stdout }).on('line', (line) => this.#hear(line))
    void this.#ended.then(() =>
      this.#opened.reject(new Fault('io', `open the shop: its process ended: ${this.#said}`)),
    )
    this.#opened.promise.catch(() => undefined)
  }

  /** Commits that it has told of: a few less than there are. */
  get committed(): number {
    return this.#committed
  }

  /** Waits until the shop is open. */
  async open(): Promise<void> {
    await this.#opened.promise
  }

  /** Waits until it has noticed that its database is gone. */
  async ended(): Promise<void> {
    await this.#ended
  }

  #hear(line: string): void {
    const news = JSON.parse(line) as { readonly committed?: number; readonly open?: boolean }
    if (news.open) this.#opened.resolve()
    if (news.committed !== undefined) this.#committed = news.committed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin.destroy()
    this.#child.kill('SIGTERM')
    const timer = setTimeout(() => void this.#child.kill('SIGKILL'), 5000)
    await this.#ended
    clearTimeout(timer)
  }
}
