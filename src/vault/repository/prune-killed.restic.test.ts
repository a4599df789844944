import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import {
  makeRepository,
  noise,
  password,
  saveFolder,
  writeObjects,
} from '../../../test/support/repositories.ts'
import { Restic } from '../../../test/support/servers/restic.ts'
import { MemStorage } from '../../storage/mem/mem.ts'

const signal = new AbortController().signal
const child = fileURLToPath(new URL('../../../test/support/prune-child.ts', import.meta.url))

function prune(dir: string, killAt = -1) {
  const {
    status,
    signal: killedBy,
    stdout,
    stderr,
  } = spawnSync(process.execPath, [child, dir, String(killAt)], { encoding: 'utf8' })
  if (killedBy === null) assert.equal(status, 0, stderr)
  return { killedBy, report: stdout === '' ? {} : (JSON.parse(stdout) as Record<string, number>) }
}

test('a process killed with SIGKILL at any operation of a prune: the next one takes over at once', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'redoubt-killed-'))
  try {
    const storage = new MemStorage()
    await using repository = await makeRepository(storage)
    const shared = noise('shared', 200_000)
    const gone = await saveFolder(
      repository,
      { shared, gone: noise('gone', 9000) },
      { time: '2026-01-01T00:00:00Z' },
    )
    await saveFolder(repository, { shared }, { time: '2026-01-02T00:00:00Z' })
    await repository.removeSnapshot(gone.id, { signal })
    const start = join(dir, 'start')
    await writeObjects(storage, start)

    const counted = join(dir, 'counted')
    await cp(start, counted, { recursive: true })
    const whole = prune(counted)
    const operations = whole.report['operations'] ?? 0
    assert.ok(operations >= 8 && (whole.report['deleted'] ?? 0) >= 2, JSON.stringify(whole))
    let killed = 0
    for (let killAt = 0; killAt < operations; killAt++) {
      const left = join(dir, `killed-${killAt}`)
      await cp(start, left, { recursive: true })
      assert.equal(prune(left, killAt).killedBy, 'SIGKILL')
      killed += 1
      prune(left)
      await new Restic({ repository: left, password }).run(['check', '--read-data'])
      await rm(left, { recursive: true })
    }
    assert.equal(killed, operations)
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
})
