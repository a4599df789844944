import assert from 'node:assert/strict'
import { link, mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { hastyTime, makeRepository, noise, password } from '../../../test/support/repositories.ts'
import { Restic } from '../../../test/support/servers/restic.ts'
import { openFsStorage } from '../../storage/fs/fs.ts'
import { copySnapshots } from './copy.ts'
import type { Repository } from './repository.ts'
import { measureRepository } from './stats.ts'

const signal = new AbortController().signal
const options = { signal, time: hastyTime }
let dir = ''
let source: Repository
let restic: Restic

async function makeFolder(name: string): Promise<{ repository: Repository; restic: Restic }> {
  const path = join(dir, name)
  const repository = await makeRepository(await openFsStorage(path, { create: true }))
  return { repository, restic: new Restic({ repository: path, password }) }
}

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'redoubt-copy-'))
  const made = await makeFolder('source')
  source = made.repository
  restic = made.restic
  await mkdir(join(dir, 'tree/deep/er'), { recursive: true })
  await writeFile(join(dir, 'tree/file'), noise('file', 700_000))
  await writeFile(join(dir, 'tree/deep/er/text'), 'text '.repeat(5000))
  await link(join(dir, 'tree/file'), join(dir, 'tree/deep/second name'))
  const old = new Restic({ repository: join(dir, 'source'), password, version: '0.14' })
  await old.run(['backup', 'tree', '--tag', 'a'], { cwd: dir })
  await writeFile(join(dir, 'tree/more'), noise('more', 30_000))
  await restic.run(['backup', 'tree', '--exclude', 'nothing'], { cwd: dir })
})

after(async () => {
  await source[Symbol.asyncDispose]()
  await rm(dir, { recursive: true, force: true })
})

test('what we copy, stock restic checks, restores, and does not copy again', async () => {
  await using target = (await makeFolder('ours')).repository
  const { copied } = await copySnapshots(source, target, options)
  assert.equal(copied.length, 2)
  const theirs = new Restic({ repository: join(dir, 'ours'), password })
  await theirs.run(['check', '--read-data'])
  await theirs.run(['restore', 'latest', '--target', join(dir, 'out')])
  const files = await readdir(join(dir, 'out'), { recursive: true })
  const more = files.find((path) => path.endsWith('tree/more'))
  assert.ok(more)
  assert.deepEqual(await readFile(join(dir, 'out', more)), noise('more', 30_000))
  await theirs.run(['copy', '--from-repo', join(dir, 'source')], {
    env: { RESTIC_FROM_PASSWORD: password },
  })
  assert.equal((await target.snapshots({ signal })).length, 2)
})

test('what stock restic copied, we do not copy again', async () => {
  const { repository, restic: theirs } = await makeFolder('theirs')
  await using target = repository
  await theirs.run(['copy', '--from-repo', join(dir, 'source')], {
    env: { RESTIC_FROM_PASSWORD: password },
  })
  const { copied, present } = await copySnapshots(source, target, options)
  assert.deepEqual([copied.length, present], [0, 2])
})

test('measureRepository() counts as stock restic does', async () => {
  const ours = await measureRepository(source, options)
  const [restore] = await restic.json(['stats', '--mode', 'restore-size'])
  const [raw] = await restic.json(['stats', '--mode', 'raw-data'])
  const field = (from: unknown, name: string): unknown => Reflect.get(Object(from), name)
  assert.equal(field(restore, 'total_size'), ours.restoreBytes)
  assert.equal(field(restore, 'total_file_count'), ours.restoreNodes)
  // Restic adds the overhead of an envelope to each blob.
  const blobs = ours.dataBlobs + ours.treeBlobs
  assert.equal(field(raw, 'total_uncompressed_size'), ours.plainBytes + 32 * blobs)
  assert.equal(field(raw, 'total_blob_count'), blobs)
  assert.equal(field(raw, 'total_size'), ours.storedBytes)
})
