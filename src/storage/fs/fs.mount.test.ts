import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const script = fileURLToPath(new URL('./testdata/small-disk.ts', import.meta.url))

test('a full disk and a read-only one are said to be so, and nothing is lost', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'redoubt-mount-'))
  try {
    // The mount is seen by this child alone, and ends with it.
    const asRoot = process.getuid?.() === 0 ? [] : ['--map-root-user']
    const steps = 'mount -t tmpfs -o size=2m none "$1" && exec "$2" "$3" "$1"'
    const args = ['--mount', 'sh', '-ec', steps, 'sh', folder, process.execPath, script]
    const { stdout } = await promisify(execFile)('unshare', [...asRoot, ...args])
    assert.match(stdout, /all held/)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})
