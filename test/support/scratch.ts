import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

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
    rmSync(this.path, { recursive: true, force: true })
  }
}
