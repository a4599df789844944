/** A database server of the story, run from a folder of its own on loopback. */
export interface DemoServer extends AsyncDisposable {
  readonly version: string
  /** The administrator's URL of the shop's database. */
  readonly url: string
  readonly dataDir: string
  /** What somebody loses with the machine: the process, and then its files. */
  loseEverything(): Promise<void>
}

/** A kind of server that this machine can run. */
export interface DemoEngine {
  readonly name: 'PostgreSQL' | 'MariaDB'
  /** How exact a moment is: the instant before the mistake, or the whole second before it. */
  momentBefore(mistakeUs: bigint): { readonly at: string; readonly boundMs: number }
  /** Starts a fresh server with an empty database `shop` below `folder`. */
  start(folder: string, signal: AbortSignal): Promise<DemoServer>
  /**
   * Where a restore goes: the arguments of `redoubt restore`, and how to reach what it brought back. PostgreSQL is
   * restored into a folder and started; MariaDB into an empty server.
   */
  prepareTarget(folder: string, signal: AbortSignal): Promise<RestorePlace>
}

export interface RestorePlace extends AsyncDisposable {
  readonly args: readonly string[]
  /** The shop's URL there, given what `redoubt restore --json` said. */
  shopUrl(restored: { readonly url?: string | undefined }): string
}
