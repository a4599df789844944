import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
  closeSync,
} from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { createProgress } from '#base/progress'
import { openFsStorage } from '#storage/fs'
import { withoutWrites } from '#storage/wrap/discard'
import type { Repository } from '#vault'
import { initRepository, openRepository } from '#vault/repository/open'
import { assertSameTree, describeTree, makeOddTree, noise } from '../../test/support/file-tree.ts'
import { Scratch } from '../../test/support/scratch.ts'
import { backupFiles, chooseSnapshot, compareFiles, restoreFiles } from './files.ts'

const { signal } = new AbortController()
const password = 'correct horse'
const hostname = 'host'
const passwordCost = { n: 2, r: 1, p: 1 }

async function initAt(path: string): Promise<Repository> {
  const storage = await openFsStorage(path, { create: true })
  return initRepository(storage, password, { signal, passwordCost })
}

async function openAt(path: string): Promise<Repository> {
  return openRepository(await openFsStorage(path), password, { signal })
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}

async function differences(repository: Repository, directory: string, subpath: string) {
  const found = await collect(
    compareFiles({ repository, directory, subpath, at: 'latest', signal }),
  )
  return found.map(({ kind, path }) => `${kind} ${path.toString()}`)
}

test('a restore over changed files writes the chunks that differ, and ends with the same tree', async () => {
  using scratch = new Scratch('files')
  const [source, directory] = [scratch.join('source'), scratch.join('target')]
  await makeOddTree(source)
  const size = 40_000_000
  writeFileSync(`${source}/database`, noise(size, 7))
  await using repository = await initAt(scratch.join('repository'))
  await backupFiles({ repository, paths: [source], hostname, signal })
  const request = { repository, directory, subpath: source, at: 'latest', signal }
  await restoreFiles(request)
  assertSameTree(describeTree(directory), describeTree(source))
  await assert.rejects(restoreFiles(request), (error) => isFault(error, 'refused'))

  const descriptor = openSync(`${directory}/database`, 'r+')
  writeSync(descriptor, 'changed', 20_000_000)
  closeSync(descriptor)
  truncateSync(`${directory}/large`, 1_000_000)
  appendFileSync(`${directory}/twin`, 'longer')
  rmSync(`${directory}/plain`)
  writeFileSync(`${directory}/plain`, 'another file')
  rmSync(`${directory}/sub`, { recursive: true })
  symlinkSync('/etc', `${directory}/sub`)
  writeFileSync(`${directory}/extra`, 'not in the snapshot')
  const dry = await restoreFiles({ ...request, overwrite: 'always', dryRun: true })
  assert.ok(dry.writtenBytes > 5_000_000n && dry.writtenBytes < 20_000_000n, `${dry.writtenBytes}`)
  assert.ok(lstatSync(`${directory}/sub`).isSymbolicLink())
  const mended = await restoreFiles({ ...request, overwrite: 'always', verify: true })
  assert.equal(mended.writtenBytes, dry.writtenBytes)
  assert.ok(existsSync(`${directory}/extra`))
  assert.deepEqual(await differences(repository, directory, source), ['extra extra'])
  const cleaned = await restoreFiles({ ...request, overwrite: 'if-changed', removeOthers: true })
  assert.equal(cleaned.removed, 1)
  assert.equal(cleaned.writtenBytes, 0n)
  assertSameTree(describeTree(directory), describeTree(source))
})

test('a comparison names every difference and changes nothing', async () => {
  using scratch = new Scratch('files')
  const [source, directory] = [scratch.join('source'), scratch.join('target')]
  await makeOddTree(source)
  await using repository = await initAt(scratch.join('repository'))
  await backupFiles({ repository, paths: [source], hostname, signal })
  await restoreFiles({ repository, directory, subpath: source, at: 'latest', signal })
  assert.deepEqual(await differences(repository, directory, source), [])
  const { mtimeMs } = statSync(`${directory}/twin`)
  const descriptor = openSync(`${directory}/twin`, 'r+')
  writeSync(descriptor, 'x', 3_000_000)
  closeSync(descriptor)
  utimesSync(`${directory}/twin`, mtimeMs / 1000, mtimeMs / 1000)
  rmSync(`${directory}/many/f17`)
  mkdirSync(`${directory}/many/f17`)
  rmSync(`${directory}/deep 0/deep 1`, { recursive: true })
  writeFileSync(`${directory}/zz`, '')
  truncateSync(`${directory}/hard`, 1)
  const before = describeTree(directory)
  const found = await differences(repository, directory, source)
  for (const each of [
    'content twin',
    'type many/f17',
    'missing deep 0/deep 1',
    'extra zz',
    'content hard',
    'content plain',
    'content sub/hard too',
    'attributes many',
    'attributes deep 0',
  ])
    assert.ok(found.includes(each), `${each} in ${found.join()}`)
  assertSameTree(describeTree(directory), before)
})

test('every damaged pack is named by what it cost, and the rest is restored', async () => {
  using scratch = new Scratch('files')
  const source = scratch.join('source')
  mkdirSync(`${source}/d`, { recursive: true })
  for (let i = 0; i < 3; i++) writeFileSync(`${source}/d/f${i}`, noise(9_000_000, i + 1))
  linkSync(`${source}/d/f1`, `${source}/d/linked`)
  {
    await using repository = await initAt(scratch.join('repository'))
    await backupFiles({ repository, paths: [source], hostname, signal })
  }
  const packs = readdirSync(scratch.join('repository/data'), { recursive: true })
    .map(String)
    .filter((name) => name.length > 60)
    .map((name) => scratch.join('repository/data', name))
  assert.ok(packs.length >= 3)
  const expected = describeTree(source)
  let damagedRuns = 0
  for (const [index, pack] of packs.entries()) {
    const whole = readFileSync(pack)
    for (const harm of ['flip', 'cut', 'remove'] as const) {
      const directory = scratch.join(`target-${index}-${harm}`)
      const bytes = Buffer.from(whole)
      const at = Math.floor(bytes.length / 3)
      bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at)
      if (harm === 'remove') rmSync(pack)
      else writeFileSync(pack, harm === 'flip' ? bytes : whole.subarray(0, 50))
      const repository = await openAt(scratch.join('repository'))
      const request = { repository, directory, subpath: source, at: 'latest', signal }
      const outcome = await restoreFiles(request).then(
        () => undefined,
        (error: unknown) => error,
      )
      await repository[Symbol.asyncDispose]()
      assert.ok(isFault(outcome, 'corrupt', 'missing'), `${harm} ${index}: ${String(outcome)}`)
      damagedRuns += 1
      // Whatever bears the name of a file is that file.
      const wrong = describeTreeOr(directory).filter((line) => !expected.includes(line))
      const named = wrong.filter((line) => !/^\/d(?: |\/[^ ]*\.damaged )/.test(line))
      assert.deepEqual(named, [], `${harm} ${index}`)
      rmSync(directory, { recursive: true, force: true })
    }
    writeFileSync(pack, whole)
  }
  assert.equal(damagedRuns, packs.length * 3)
})

function describeTreeOr(directory: string): string[] {
  return existsSync(directory) ? describeTree(directory) : []
}

test('a dry run of a backup stores nothing and says what would be stored', async () => {
  using scratch = new Scratch('files')
  const source = scratch.join('source')
  mkdirSync(source)
  writeFileSync(`${source}/f`, noise(3_000_000, 3))
  await (await initAt(scratch.join('repository')))[Symbol.asyncDispose]()
  const before = describeTree(scratch.join('repository'))
  const storage = withoutWrites(await openFsStorage(scratch.join('repository')))
  await using repository = await openRepository(storage, password, { signal })
  const dry = await backupFiles({ repository, paths: [source], hostname, dryRun: true, signal })
  assert.equal(dry.snapshot, undefined)
  assert.equal(dry.summary.files_new, 1)
  assert.ok(dry.summary.data_added > 3_000_000)
  assertSameTree(describeTree(scratch.join('repository')), before)
})

test('what cannot be read is left out and told, and the rest is saved', async () => {
  using scratch = new Scratch('files')
  const source = scratch.join('source')
  mkdirSync(source)
  writeFileSync(`${source}/good`, 'good')
  // A regular file that no one can read from its beginning.
  const bad = `/proc/${process.pid}/mem`
  await using repository = await initAt(scratch.join('repository'))
  const paths = [source, bad, scratch.join('nowhere')]
  const backed = await backupFiles({ repository, paths, hostname, signal })
  assert.equal(backed.unreadCount, 2)
  assert.deepEqual(backed.troubles.map(({ path }) => path).sort(), [bad, scratch.join('nowhere')])
  assert.equal(backed.summary.files_new, 1)
  await assert.rejects(
    backupFiles({ repository, paths: [scratch.join('nowhere')], hostname, signal }),
    (error) => isFault(error, 'missing'),
  )
})

test('unchanged files are not read again, changed ones are, whatever their times say', async () => {
  using scratch = new Scratch('files')
  const source = scratch.join('source')
  mkdirSync(source)
  for (const name of ['same', 'touched', 'rewritten'])
    writeFileSync(`${source}/${name}`, noise(100_000, 9))
  await using repository = await initAt(scratch.join('repository'))
  const back = async (more = {}) => {
    const progress = createProgress('backup')
    // Well after the files were written: a backup trusts no time that is that of the one before it.
    const timeUs = BigInt(Date.now() + 60_000) * 1000n
    const request = { repository, paths: ['.'], hostname, progress, timeUs, signal, ...more }
    // From within, so that no folder above is part of the tree: other programs change those.
    const before = process.cwd()
    process.chdir(source)
    try {
      return await backupFiles(request)
    } finally {
      process.chdir(before)
    }
  }
  await back()
  const { atimeMs, mtimeMs } = statSync(`${source}/rewritten`)
  writeFileSync(`${source}/rewritten`, noise(100_000, 10))
  utimesSync(`${source}/rewritten`, atimeMs / 1000, mtimeMs / 1000)
  utimesSync(`${source}/touched`, 1, 1)
  const second = await back()
  const { files_changed, files_unmodified, data_blobs } = second.summary
  assert.deepEqual([files_changed, files_unmodified, data_blobs], [2, 1, 1])
  const again = await back({ skipIfUnchanged: true })
  assert.equal(again.snapshot, undefined)
  assert.equal((await back({ force: true })).parent, undefined)
})

test('a full disk stops a restore with a fault that says so, and the next one goes on', async () => {
  using scratch = new Scratch('files')
  const [source, small] = [scratch.join('source'), scratch.join('small')]
  mkdirSync(source)
  mkdirSync(small)
  using _mounted = mount(['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', small])
  writeFileSync(`${source}/large`, noise(9_000_000, 1))
  await using repository = await initAt(scratch.join('repository'))
  await backupFiles({ repository, paths: [source], hostname, signal })
  const directory = join(small, 'target')
  const request = { repository, directory, subpath: source, at: 'latest', signal }
  await assert.rejects(restoreFiles(request), (error) => isFault(error, 'full'))
  // Once there is room, it goes on with what is missing.
  assert.equal(spawnSync('mount', ['-o', 'remount,size=40m', small]).status, 0)
  const { keptBytes } = await restoreFiles({ ...request, overwrite: 'always' })
  assert.ok(keptBytes > 0n)
  assertSameTree(describeTree(directory), describeTree(source))
})

test('one file system is not left; what is mounted in it stays an empty directory', async () => {
  using scratch = new Scratch('files')
  const source = scratch.join('source')
  mkdirSync(`${source}/mounted`, { recursive: true })
  writeFileSync(`${source}/f`, 'f')
  using _mounted = mount(['-t', 'tmpfs', 'tmpfs', `${source}/mounted`])
  mkdirSync(`${source}/mounted/inner`)
  writeFileSync(`${source}/mounted/g`, 'g')
  await using repository = await initAt(scratch.join('repository'))
  const { summary } = await backupFiles({
    repository,
    paths: [source],
    oneFileSystem: true,
    hostname,
    signal,
  })
  assert.equal(summary.files_new, 1)
  const directory = scratch.join('target')
  await restoreFiles({ repository, directory, subpath: source, at: 'latest', signal })
  assert.deepEqual(readdirSync(directory).sort(), ['f', 'mounted'])
  assert.deepEqual(readdirSync(`${directory}/mounted`), [])
})

function mount(args: readonly string[]): Disposable {
  const { status, stderr } = spawnSync('mount', args)
  assert.equal(status, 0, stderr.toString())
  const place = args.at(-1) ?? ''
  return { [Symbol.dispose]: () => assert.equal(spawnSync('umount', [place]).status, 0) }
}

test('what a killed backup leaves behind does not harm the next one', async () => {
  using scratch = new Scratch('files')
  const source = scratch.join('source')
  mkdirSync(source)
  for (let i = 0; i < 12; i++) writeFileSync(`${source}/f${i}`, noise(10_000_000, i + 20))
  await (await initAt(scratch.join('repository')))[Symbol.asyncDispose]()
  const program = new URL('../../test/support/backup-files.ts', import.meta.url)
  const args = [program.pathname, scratch.join('repository'), password, source, '4']
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  // It says a line a pack that is stored, and dies in the middle.
  let packs = 0
  for await (const line of createInterface({ input: child.stdout })) {
    assert.match(line, /^stored /)
    packs += 1
    if (packs === 3) child.kill('SIGKILL')
  }
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  assert.equal(child.signalCode, 'SIGKILL')
  await using repository = await openAt(scratch.join('repository'))
  assert.deepEqual(await repository.snapshots({ signal }), [])
  const backed = await backupFiles({ repository, paths: [source], hostname, signal })
  assert.equal(backed.summary.files_new, 12)
  const directory = scratch.join('target')
  await restoreFiles({ repository, directory, subpath: source, at: 'latest', signal })
  assertSameTree(describeTree(directory), describeTree(source))
})

test('chooseSnapshot() takes the latest that fits, by time, or by id', async () => {
  const made = (id: string, time: string, more = {}) => ({
    id: id.repeat(64).slice(0, 64),
    time,
    tree: '',
    paths: ['/a'],
    hostname: 'h',
    ...more,
  })
  const snapshots = [
    made('1a', '2026-01-01T10:00:00.123456789Z'),
    made('1b', '2026-01-02T10:00:00+02:00', { tags: ['t'] }),
    made('2c', '2026-01-03T10:00:00Z', { hostname: 'other', paths: ['/a', '/b'] }),
    made('3d', '2026-01-04T10:00:00Z', { tags: ['redoubt-base'] }),
  ]
  const choose = (at: string, more = {}) =>
    chooseSnapshot(snapshots, { at, ...more }).id.slice(0, 2)
  assert.equal(choose('latest'), '2c')
  assert.equal(choose('latest', { hostname: 'h' }), '1b')
  assert.equal(choose('latest', { paths: ['/b'] }), '2c')
  assert.equal(choose('2026-01-02T08:00:00Z'), '1b')
  assert.equal(choose('2026-01-02T07:59:59Z'), '1a')
  assert.equal(choose('1b1b'), '1b')
  assert.throws(() => choose('1'), /there is none/)
  assert.throws(
    () => choose('2025-01-01'),
    (error) => isFault(error, 'missing'),
  )
})
