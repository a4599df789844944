import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import path from 'node:path'

/** A disk of a few MiB that can be filled to the last byte; mounting it needs root, which CI has. */
export class SmallDisk implements Disposable {
  readonly #folder: string

  constructor(folder: string, sizeMib: number) {
    this.#folder = folder
    mkdirSync(folder)
    const args = ['-t', 'tmpfs', '-o', `size=${sizeMib}m,mode=755`, 'redoubt-test', folder]
    const mounted = spawnSync('mount', args)
    assert.equal(mounted.status, 0, `mounting needs root: ${String(mounted.stderr)}`)
  }

  /** Takes what room there is. */
  fill(): void {
    const filled = spawnSync('dd', ['if=/dev/zero', `of=${this.#ballast}`, 'bs=4k'])
    assert.notEqual(filled.status, 0, 'the disk was to be full')
  }

  makeRoom(): void {
    rmSync(this.#ballast)
  }

  get #ballast(): string {
    return path.join(this.#folder, 'ballast')
  }

  [Symbol.dispose](): void {
    // Lazily: a process that was just killed may still hold a file.
    spawnSync('umount', ['-l', this.#folder])
  }
}
