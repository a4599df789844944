import { chmodSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

/** A folder of a test's own, gone when the scope ends. */
export class Scratch implements Disposable {
  readonly path: string

  constructor(name = 'test') {
    this.path = mkdtempSync(path.join(tmpdir(), `redoubt-${name}-`))
    // Servers of another user must be able to pass through.
    chmodSync(this.path, 0o755)
  }

  join(...parts: readonly string[]): string {
    return path.join(this.path, ...parts)
  }

  [Symbol.dispose](): void {
    // A server that was killed may write for another moment.
    rmSync(this.path, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 })
  }
}

/** Waits until a server that was told to end has removed its file of the process id: nothing writes to its folder any more. */
export async function untilServerEnded(pidFile: string): Promise<void> {
  const untilMs = performance.now() + 300_000
  while (existsSync(pidFile)) {
    if (performance.now() > untilMs) throw new Error(`the server of ${pidFile} does not end`)
    await delay(50)
  }
}
