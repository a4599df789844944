import { type Protection, type ProtectNews, Redoubt } from '../../src/demo/redoubt.ts'
import { done, type Ran, runCommand } from './command.ts'
import { Scratch } from './scratch.ts'

const { signal } = new AbortController()
const windowMaxMs = 300_000

export const vaultPassword = 'correct-horse'

/** What `redoubt window --json` says of one source, as far as tests look at it. */
export type WindowDocument = {
  readonly source: { readonly name: string; readonly version: string }
  readonly windows: readonly {
    readonly from: { readonly history: string }
    readonly fromUs: string
    readonly toUs: string
    readonly continuous: boolean
    readonly bases: readonly string[]
  }[]
  readonly gaps: readonly { readonly said: string }[]
  readonly degraded?: { readonly said: string; readonly sinceMs: number } | undefined
  readonly bases: readonly { readonly name: string }[]
}

export type RestoreDocument = {
  readonly base: string
  readonly result: { readonly url?: string; readonly reached: { readonly at: string } }
}

/** A vault and a state folder of one test, and the command line that works with them. */
export class Guarded implements Disposable {
  readonly scratch: Scratch
  readonly #ownScratch: boolean
  readonly vault: string
  readonly env: Readonly<Record<string, string>>

  private constructor(scratch: Scratch, options: GuardedOptions) {
    this.scratch = scratch
    this.#ownScratch = options.scratch === undefined
    this.vault = options.vault ?? scratch.join('vault')
    const state = options.state ?? scratch.join('state')
    this.env = { REDOUBT_VAULT_PASSWORD: vaultPassword, REDOUBT_DATA: state, ...options.env }
  }

  static async begin(name: string, options: GuardedOptions = {}): Promise<Guarded> {
    const guarded = new Guarded(options.scratch ?? new Scratch(name), options)
    await guarded.done('vault', 'init', '--vault', guarded.vault)
    return guarded
  }

  run(...args: readonly string[]): Promise<Ran> {
    return runCommand(args, this.env)
  }

  /** Runs a command that must go well; returns its document. */
  async done(...args: readonly string[]): Promise<unknown> {
    return done(await this.run(...args))
  }

  protect(
    url: string,
    args: readonly string[] = [],
    env: Readonly<Record<string, string>> = {},
  ): Protection {
    const redoubt = new Redoubt({ ...this.env, ...env }, signal)
    return redoubt.protect(['--source', url, '--vault', this.vault, '--name', 'shop', ...args])
  }

  restore(...args: readonly string[]): Promise<Ran> {
    return this.run('restore', '--vault', this.vault, '--source', 'shop', ...args)
  }

  async restored(...args: readonly string[]): Promise<RestoreDocument> {
    return done(await this.restore(...args)) as RestoreDocument
  }

  async window(): Promise<WindowDocument> {
    const all = (await this.done('window', '--vault', this.vault)) as WindowDocument[]
    const [report] = all
    if (!report || all.length > 1) throw new Error(`the vault knows ${all.length} sources`)
    return report
  }

  /** Looks into the vault until it shows what was just said; `protect` tells it there a moment later. */
  async untilWindow(enough: (report: WindowDocument) => boolean): Promise<WindowDocument> {
    const untilMs = performance.now() + windowMaxMs
    for (;;) {
      const report = await this.window()
      if (enough(report)) return report
      if (performance.now() > untilMs) throw new Error(`the window shows ${JSON.stringify(report)}`)
    }
  }

  [Symbol.dispose](): void {
    if (this.#ownScratch) this.scratch[Symbol.dispose]()
  }
}

export type GuardedOptions = {
  readonly scratch?: Scratch | undefined
  /** Another vault than a folder of the test's own. */
  readonly vault?: string | undefined
  readonly state?: string | undefined
  readonly env?: Readonly<Record<string, string>> | undefined
}

/** Waits until a protection says something. */
export function hear(
  protection: Protection,
  enough: (news: ProtectNews) => boolean,
): Promise<ProtectNews> {
  return protection.until(enough, { signal })
}

/** Until it has a base, and the log runs. */
export function untilGuarded(protection: Protection): Promise<ProtectNews> {
  return hear(protection, ({ lastBase, lagMs }) => lastBase !== undefined && lagMs !== undefined)
}

/** Until another base than that one opens the window, and the log runs. */
export function untilNewBase(
  protection: Protection,
  before: string | undefined,
): Promise<ProtectNews> {
  let seenMs: number | undefined
  return hear(protection, ({ lastBase, timeMs, lagMs = Number.POSITIVE_INFINITY }) => {
    if (lastBase === undefined || lastBase === before) return false
    seenMs ??= timeMs
    // What was covered before the log broke off is known still; this is of afterwards.
    return timeMs - lagMs > seenMs
  })
}

/** Until all that was committed by now is in every vault. */
export function untilShipped(protection: Protection): Promise<ProtectNews> {
  return protection.untilShipped(Date.now(), { signal })
}
