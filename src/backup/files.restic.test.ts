import assert from 'node:assert/strict'
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { test } from 'node:test'
import { openFsStorage } from '#storage/fs'
import type { Repository } from '#vault'
import { initRepository, openRepository } from '#vault/repository/open'
import { readNodes } from '#vault/repository/tree-reader'
import { resolveTree } from '#vault/repository/tree-loader'
import { assertSameTree, describeTree, makeOddTree, noise } from '../../test/support/file-tree.ts'
import { Scratch } from '../../test/support/scratch.ts'
import { Restic, type ResticVersion } from '../../test/support/servers/restic.ts'
import { backupFiles, restoreFiles } from './files.ts'

const { signal } = new AbortController()
const password = 'correct horse'
const hostname = 'host'
const passwordCost = { n: 2, r: 1, p: 1 }

type Tree = { readonly id: string; readonly tree: string }

async function openAt(path: string): Promise<Repository> {
  return openRepository(await openFsStorage(path), password, { signal })
}

async function initAt(path: string): Promise<Repository> {
  const storage = await openFsStorage(path, { create: true })
  return initRepository(storage, password, { signal, passwordCost })
}

function stock(scratch: Scratch, version?: ResticVersion): Restic {
  // Trees hold times with their zone: the same zone makes the same trees.
  return new Restic({
    repository: scratch.join('repository'),
    password,
    version,
    env: { TZ: 'UTC' },
  })
}

async function stockBackup(restic: Restic, args: readonly string[], cwd?: string): Promise<Tree> {
  await restic.run(['backup', '--host', hostname, ...args], { cwd, codes: [0, 3] })
  return latest(restic)
}

async function latest(restic: Restic): Promise<Tree> {
  const [snapshots] = (await restic.json(['snapshots'])) as [Tree[]]
  const last = snapshots.at(-1)
  assert.ok(last)
  return last
}

/** The tree of what lies in the scratch folder: that of its parents' parents changes with every other test. */
async function below(repository: Repository, scratch: Scratch, tree: string): Promise<string> {
  await repository.loadIndex({ signal })
  return resolveTree(repository, tree, scratch.path, { signal })
}

for (const version of ['0.19', '0.14'] as const) {
  test(`restic ${version} checks and restores what we backed up, all attributes included`, async () => {
    using scratch = new Scratch('files')
    const [source, target] = [scratch.join('source'), scratch.join('target')]
    await makeOddTree(source, { plain: version === '0.14' })
    await using repository = await initAt(scratch.join('repository'))
    const { snapshot, troubles } = await backupFiles({
      repository,
      paths: [source],
      hostname,
      signal,
    })
    assert.ok(snapshot)
    assert.deepEqual(troubles, [])
    const restic = stock(scratch, version)
    await restic.run(['check', '--read-data'])
    await restic.run(['restore', snapshot.id, '--target', target])
    const expected = describeTree(source)
    assert.ok(expected.length > 350)
    assertSameTree(describeTree(target + source), expected)
  })

  test(`we restore what restic ${version} backed up, all attributes included`, async () => {
    using scratch = new Scratch('files')
    const [source, target] = [scratch.join('source'), scratch.join('target')]
    await makeOddTree(source, { plain: version === '0.14' })
    const restic = stock(scratch, version)
    await restic.run(['init', '--repository-version', version === '0.14' ? '1' : '2'])
    await stockBackup(restic, [source])
    await using repository = await openAt(scratch.join('repository'))
    const directory = target
    const restored = await restoreFiles({
      repository,
      directory,
      at: 'latest',
      verify: true,
      signal,
    })
    assert.deepEqual(restored.troubles, [])
    assertSameTree(describeTree(target + source), describeTree(source))
  })
}

test('the same tree has the same id whoever backs it up, and adds nothing', async () => {
  using scratch = new Scratch('files')
  const source = scratch.join('source')
  await makeOddTree(source)
  await using repository = await initAt(scratch.join('repository'))
  const ours = await backupFiles({ repository, paths: [source], hostname, signal })
  const restic = stock(scratch)
  const theirs = await stockBackup(restic, [source])
  const inner = await below(repository, scratch, ours.tree)
  assert.equal(await below(repository, scratch, theirs.tree), inner)
  const again = await backupFiles({ repository, paths: [source], hostname, signal })
  assert.equal(await below(repository, scratch, again.tree), inner)
  assert.equal(again.parent, theirs.id)
  const { files_new, files_changed, dirs_new, data_blobs, tree_blobs } = again.summary
  assert.deepEqual([files_new, files_changed, dirs_new, data_blobs], [0, 0, 0, 0])
  // Nothing but the folders above, which other programs use.
  assert.ok(tree_blobs <= 2, `${tree_blobs} trees`)
  // And the other way about: what restic has, we need not read.
  rmSync(scratch.join('repository'), { recursive: true })
  await restic.run(['init'])
  const first = await stockBackup(restic, [source])
  await using theirRepository = await openAt(scratch.join('repository'))
  const next = await backupFiles({ repository: theirRepository, paths: [source], hostname, signal })
  const [a, b] = [first.tree, next.tree].map((tree) => below(theirRepository, scratch, tree))
  assert.equal(await a, await b)
  assert.equal(next.summary.data_blobs, 0)
})

test('holes are cut into the same chunks as the zeroes that they read as', async () => {
  using scratch = new Scratch('files')
  const source = scratch.join('source')
  mkdirSync(source)
  const islands: readonly (readonly [offset: number, size: number])[] = [
    [0, 1],
    [20_000_000, 3_000_000],
    [40_000_001, 700_000],
    [49_999_999, 1],
    [2 ** 26 + 8 * 2 ** 20, 4096],
  ]
  for (const size of [100_000_000, 2 ** 27, 2 ** 27 + 1]) {
    for (const used of [islands, islands.slice(1), islands.slice(1, 2), []]) {
      const descriptor = openSync(`${source}/${size}-${used.length}`, 'w')
      ftruncateSync(descriptor, size)
      for (const [offset, length] of used)
        writeSync(descriptor, noise(length + 4, offset), 0, length, offset)
      closeSync(descriptor)
    }
  }
  await using repository = await initAt(scratch.join('repository'))
  const theirs = await stockBackup(stock(scratch), [source])
  const ours = await backupFiles({ repository, paths: [source], force: true, hostname, signal })
  assert.equal(ours.summary.data_blobs, 0)
  const inner = await below(repository, scratch, ours.tree)
  assert.equal(inner, await below(repository, scratch, theirs.tree))
  const directory = scratch.join('target')
  await restoreFiles({ repository, directory, at: 'latest', subpath: source, signal })
  assertSameTree(describeTree(directory), describeTree(source))
  for (const name of readdirSync(directory)) {
    const blocks = (path: string) => statSync(path).blocks
    const [is, was] = [blocks(`${directory}/${name}`), blocks(`${source}/${name}`)]
    assert.ok(is <= was + 64, `${name} takes ${is} blocks, took ${was}`)
  }
})

test('a sparse file of 100 GB is backed up and restored at once, and takes no room', async () => {
  using scratch = new Scratch('files')
  const source = scratch.join('source')
  mkdirSync(source)
  writeFileSync(`${source}/sparse`, '')
  truncateSync(`${source}/sparse`, 100_000_000_000)
  await using repository = await initAt(scratch.join('repository'))
  const { summary } = await backupFiles({ repository, paths: [source], hostname, signal })
  assert.equal(summary.total_bytes_processed, 100_000_000_000)
  // One chunk of zeroes, and what is left behind the last whole one.
  assert.equal(summary.data_blobs, 2)
  await stock(scratch).run(['check', '--read-data'])
  const directory = scratch.join('target')
  await restoreFiles({ repository, directory, at: 'latest', subpath: source, signal })
  const stats = statSync(`${directory}/sparse`)
  assert.equal(stats.size, 100_000_000_000)
  assert.equal(stats.blocks, 0)
})

test('paths are laid out as restic lays them out', async () => {
  using scratch = new Scratch('files')
  const source = scratch.join('source')
  for (const directory of ['a/b/c', 'a/d', 'x/a', 'y/a'])
    mkdirSync(`${source}/${directory}`, { recursive: true })
  for (const file of ['a/f', 'a/b/f', 'a/b/c/f', 'a/d/f', 'x/a/f', 'y/a/g', 'top'])
    writeFileSync(`${source}/${file}`, file)
  symlinkSync('a/b', `${source}/link`)
  await using repository = await initAt(scratch.join('repository'))
  const restic = stock(scratch)
  const cases: readonly (readonly string[])[] = [
    [source],
    [`${source}/a/b`, `${source}/a/d`],
    [`${source}/a`, `${source}/a/b`],
    [`${source}/a/b`, `${source}/a`, source],
    [`${source}/a/b/c/f`, `${source}/top`],
    [`${source}/link`],
    [`${source}/link/c`],
    [`${source}/a/../x`],
    [`${source}//a/./b/`],
    ['a'],
    ['.'],
    ['a/b', 'x'],
    ['a', 'x/../a/b'],
    ['./x/a', `${source}/y`],
    ['../source/a', 'x'],
    ['..'],
  ]
  const before = process.cwd()
  process.chdir(source)
  try {
    for (const paths of cases) {
      // The repository must not lie in what is backed up.
      const args = paths.includes('..') ? ['--exclude', 'repository'] : []
      const theirs = await stockBackup(restic, [...args, ...paths], source)
      const excludes = args.slice(1)
      const ours = await backupFiles({ repository, paths, excludes, hostname, signal })
      const listed = await listTree(repository, ours.tree)
      assert.ok(listed.length > 0)
      assertSameTree(listed, await listTree(repository, theirs.tree), paths.join(' '))
    }
  } finally {
    process.chdir(before)
  }
})

async function listTree(repository: Repository, tree: string): Promise<string[]> {
  await repository.loadIndex({ signal })
  const lines: string[] = []
  for await (const { path, node } of readNodes(repository, tree, { signal }))
    lines.push(`${path} ${node.kind} ${node.inode}`)
  return lines
}

test('excludes leave out what restic leaves out', async () => {
  using scratch = new Scratch('files')
  const source = scratch.join('source')
  makeExcludable(source)
  const patterns = scratch.join('patterns')
  writeFileSync(patterns, '# comment\n\n  *.log  \n!keep.log\n$REDOUBT_TEST_EXCLUDED\n$$dollar\n')
  process.env['REDOUBT_TEST_EXCLUDED'] = 'sub2'
  await using repository = await initAt(scratch.join('repository'))
  const restic = stock(scratch)
  const exclude = (...excludes: string[]) => ({
    args: excludes.flatMap((pattern) => ['--exclude', pattern]),
    rules: { excludes },
  })
  const cases = [
    exclude('*.log'),
    exclude('sub'),
    exclude('sub/*.log'),
    exclude('/sub'),
    exclude(`${source}/sub`),
    exclude(`${source}/*/deep`),
    exclude(`${source}/**/deep/*.txt`),
    exclude('**/deep'),
    exclude('sub/**'),
    exclude('sub/**/b.txt'),
    exclude('?.txt'),
    exclude('[ab].txt'),
    exclude('[^ab].txt'),
    exclude('\\*'),
    exclude('*😀*', 'f?n'),
    exclude('*.txt', '!a.txt'),
    exclude('*', '!*.log', '!sub', '!sub2', '!source'),
    exclude('sub/'),
    exclude('sub//deep/../deep'),
    exclude('.*'),
    exclude('**'),
    exclude('*.LOG'),
    {
      args: ['--iexclude', '*.LOG', '--iexclude', 'SUB2'],
      rules: { excludesNoCase: ['*.LOG', 'SUB2'] },
    },
    { args: ['--exclude-file', patterns], rules: { excludeFiles: [patterns] } },
    { args: ['--iexclude-file', patterns], rules: { excludeFilesNoCase: [patterns] } },
    { args: ['--exclude-caches'], rules: { excludeCaches: true } },
    { args: ['--exclude-if-present', '.nobackup'], rules: { excludeIfPresent: ['.nobackup'] } },
    {
      args: ['--exclude-if-present', '.nobackup:yes'],
      rules: { excludeIfPresent: ['.nobackup:yes'] },
    },
    {
      args: ['--exclude-if-present', '.nobackup:no'],
      rules: { excludeIfPresent: ['.nobackup:no'] },
    },
    { args: ['--exclude-larger-than', '5K'], rules: { excludeLargerThanBytes: 5120 } },
    { args: ['--exclude-larger-than', '5001'], rules: { excludeLargerThanBytes: 5001 } },
    { args: ['--one-file-system'], rules: { oneFileSystem: true } },
  ]
  const trees = new Set<string>()
  for (const [index, { args, rules }] of cases.entries()) {
    const several = [source, `${source}/sub/deep`, `${source}/marked/in`]
    for (const paths of index % 3 === 1 ? [[source], several] : [[source]]) {
      const theirs = await stockBackup(restic, [...args, ...paths])
      const ours = await backupFiles({ repository, paths, ...rules, hostname, signal })
      const inner = await below(repository, scratch, ours.tree)
      const label = `${args.join(' ')} of ${paths.length} paths`
      if (inner !== (await below(repository, scratch, theirs.tree))) {
        const listed = await listTree(repository, ours.tree)
        assertSameTree(listed, await listTree(repository, theirs.tree), label)
        assert.fail(label)
      }
      trees.add(inner)
    }
  }
  assert.ok(trees.size > 20, `${trees.size} different trees`)
})

function makeExcludable(source: string): void {
  for (const directory of ['sub/deep', 'sub2', 'cache', 'uncache', 'marked/in', '.hidden'])
    mkdirSync(`${source}/${directory}`, { recursive: true })
  const files = [
    'a.txt',
    'b.txt',
    'c.txt',
    'a.log',
    'keep.log',
    'B.LOG',
    '*',
    'f😀n',
    'fün',
    '$dollar',
  ]
  for (const directory of [
    '',
    'sub/',
    'sub/deep/',
    'sub2/',
    'cache/',
    'uncache/',
    'marked/',
    'marked/in/',
  ])
    for (const file of files) writeFileSync(`${source}/${directory}${file}`, file)
  writeFileSync(`${source}/large`, Buffer.alloc(5121))
  writeFileSync(`${source}/sub/just`, Buffer.alloc(5120))
  const signature = 'Signature: 8a477f597d28d172789f06886806bc55'
  writeFileSync(`${source}/cache/CACHEDIR.TAG`, `${signature}\nmore`)
  writeFileSync(`${source}/uncache/CACHEDIR.TAG`, 'Signature: none')
  writeFileSync(`${source}/marked/.nobackup`, 'yes, do not')
  symlinkSync('a.txt', `${source}/sub/link.txt`)
}

test('a restore brings back what restic would bring back', async () => {
  using scratch = new Scratch('files')
  const source = scratch.join('source')
  makeExcludable(source)
  await using repository = await initAt(scratch.join('repository'))
  await backupFiles({ repository, paths: [source], hostname, signal })
  const restic = stock(scratch)
  const cases = [
    { args: ['--include', '*.txt'], request: { includes: ['*.txt'] } },
    { args: ['--include', '/sub'], request: { includes: ['/sub'] } },
    { args: ['--include', `${source}/sub/deep`], request: { includes: [`${source}/sub/deep`] } },
    { args: ['--include', 'deep', '--include', '*.log'], request: { includes: ['deep', '*.log'] } },
    { args: ['--include', `${source}/**/a.txt`], request: { includes: [`${source}/**/a.txt`] } },
    { args: ['--iinclude', '*.LOG'], request: { includesNoCase: ['*.LOG'] } },
    { args: ['--include', 'sub', '--include', '!*.txt'], request: { includes: ['sub', '!*.txt'] } },
    { args: ['--exclude', '*.txt'], request: { excludes: ['*.txt'] } },
    { args: ['--exclude', 'sub'], request: { excludes: ['sub'] } },
    {
      args: ['--iexclude', 'SUB', '--exclude', 'b*'],
      request: { excludesNoCase: ['SUB'], excludes: ['b*'] },
    },
  ]
  for (const [index, { args, request }] of cases.entries()) {
    const [theirs, directory] = [scratch.join(`theirs${index}`), scratch.join(`ours${index}`)]
    await restic.run(['restore', 'latest', '--target', theirs, ...args])
    await restoreFiles({ repository, directory, at: 'latest', ...request, signal })
    const expected = describeTree(theirs)
    assertSameTree(describeTree(directory), expected, args.join(' '))
  }
  const [theirs, directory] = [scratch.join('theirs'), scratch.join('ours')]
  await restic.run([
    'restore',
    `latest:${source}/sub`,
    '--target',
    theirs,
    '--include',
    '/deep/*.txt',
  ])
  const subpath = `${source}/sub`
  await restoreFiles({
    repository,
    directory,
    at: 'latest',
    subpath,
    includes: ['/deep/*.txt'],
    signal,
  })
  assert.ok(readdirSync(`${directory}/deep`).length > 2)
  assertSameTree(describeTree(directory), describeTree(theirs))
})
