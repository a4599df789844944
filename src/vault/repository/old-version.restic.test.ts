import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { hastyTime, makeRepository, noise, password } from '../../../test/support/repositories.ts'
import { Restic } from '../../../test/support/servers/restic.ts'
import { openFsStorage } from '../../storage/fs/fs.ts'
import { checkRepository } from './check.ts'
import { copySnapshots } from './copy.ts'
import { forgetSnapshots } from './forget.ts'
import { openRepository } from './open.ts'
import { pruneRepository } from './prune.ts'
import { measureRepository } from './stats.ts'

const signal = new AbortController().signal
const options = { signal, time: hastyTime }

test('a repository of version 1 is checked, counted and copied to version 2; it is not pruned', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'redoubt-v1-'))
  try {
    const old = new Restic({ repository: join(dir, 'old'), password, version: '0.14' })
    await old.run(['init', '--repository-version', '1'])
    await mkdir(join(dir, 'tree/deep'), { recursive: true })
    await writeFile(join(dir, 'tree/file'), noise('file', 900_000))
    await writeFile(join(dir, 'tree/deep/text'), 'text '.repeat(3000))
    await old.run(['backup', 'tree'], { cwd: dir })

    const oldStorage = await openFsStorage(join(dir, 'old'))
    await using source = await openRepository(oldStorage, password, { signal })
    assert.equal(source.version, 1)
    const checked = await checkRepository(source, { ...options, readData: { kind: 'all' } })
    assert.deepEqual(checked.findings, [])
    assert.ok((await measureRepository(source, options)).restoreBytes > 900_000)

    const newStorage = await openFsStorage(join(dir, 'new'), { create: true })
    await using target = await makeRepository(newStorage)
    assert.equal((await copySnapshots(source, target, options)).copied.length, 1)
    const theirs = new Restic({ repository: join(dir, 'new'), password })
    await theirs.run(['check', '--read-data'])
    await assert.rejects(pruneRepository(source, options), { code: 'unsupported' })
    const [snapshot] = await source.snapshots({ signal })
    assert.ok(snapshot)
    await forgetSnapshots(source, { ...options, ids: [snapshot.id] })
    await old.run(['check', '--read-data'])
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
})
