import assert from 'node:assert/strict'
import { execFile, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { collect, pattern } from '../storage.suite.ts'
import { openFsStorage } from './fs.ts'

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

test('a writer killed at any moment leaves whole objects only', async () => {
  const root = mkdtempSync(join(tmpdir(), 'redoubt-kill-'))
  await using cleaning = new AsyncDisposableStack()
  cleaning.defer(() => rmSync(root, { recursive: true, force: true }))
  const storage = await openFsStorage(root)
  const writer = fileURLToPath(new URL('./testdata/writer.ts', import.meta.url))
  for (let round = 0; round < 3; round++) {
    const child = fork(writer, [root], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    // It tells of each object that it saw stored; it dies with others under way.
    const told: string[] = []
    child.on('message', (key: string) => told.push(key))
    while (told.length < 20 * (round + 1)) await once(child, 'message')
    child.kill('SIGKILL')
    await once(child, 'exit')
    const keys = new Set((await collect(storage.list(''))).map((info) => info.key))
    for (const key of told) assert.ok(keys.has(key), `${key} was stored`)
    for (const key of keys) {
      const bytes = await storage.get(key)
      assert.ok(bytes.equals(pattern(Number(key.split('-')[1]))), `${key} is whole`)
    }
  }
})
