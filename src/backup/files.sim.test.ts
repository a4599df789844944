import assert from 'node:assert/strict'
import {
  appendFileSync,
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { MemStorage } from '#storage/mem'
import { initRepository } from '#vault/repository/open'
import { assertSameTree, describeTree, noise } from '../../test/support/file-tree.ts'
import { Dice } from '../../test/support/dice.ts'
import { Scratch } from '../../test/support/scratch.ts'
import { backupFiles, compareFiles, restoreFiles } from './files.ts'

const { signal } = new AbortController()
const passwordCost = { n: 2, r: 1, p: 1 }
const seeds = Array.from(
  { length: Number(process.env['REDOUBT_TEST_SEEDS'] ?? 4) },
  (_, i) => i + 1,
)
const rounds = 5

const names = ['a', 'b', 'B', 'a.b', 'ä', 'a b', '-', 'Z\n', 'zz', '0']

/** Any place in the tree, there or not. */
function somewhere(root: string, dice: Dice): string {
  let path = root
  do path = join(path, dice.pick(names))
  while (existsSync(path) && lstatSync(path).isDirectory() && dice.roll(4) > 0)
  return path
}

/** One random change; what cannot be done there is left. */
function change(root: string, dice: Dice): void {
  const path = somewhere(root, dice)
  const there = lstatSync(path, { throwIfNoEntry: false })
  const other = somewhere(root, dice)
  if (!there) {
    const kind = dice.roll(10)
    if (kind < 3) mkdirSync(path)
    else if (kind === 3) symlinkSync(other, path)
    else if (kind === 4 && existsSync(other) && lstatSync(other).isFile()) linkSync(other, path)
    else
      writeFileSync(
        path,
        noise(dice.pick([0, 1, 5000, 50_000, 700_000, 2_500_000]), dice.roll(9) + 1),
      )
    return
  }
  switch (dice.roll(6)) {
    case 0:
      return rmSync(path, { recursive: true })
    case 1:
      if (!isThere(other) && !other.startsWith(path)) renameSync(path, other)
      return
    case 2:
      if (!there.isSymbolicLink()) chmodSync(path, 0o400 + dice.roll(0o400))
      return
    case 3:
      if (!there.isSymbolicLink()) utimesSync(path, dice.roll(2e9), dice.roll(2e9))
      return
    default:
      if (there.isFile()) rewrite(path, dice)
  }
}

/** A dangling symlink is there too. */
function isThere(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined
}

function rewrite(path: string, dice: Dice): void {
  const { size, atime, mtime } = statSync(path)
  const how = dice.roll(3)
  if (how === 0) appendFileSync(path, 'more')
  else if (how === 1) truncateSync(path, dice.roll(size + 1_000_000))
  else if (size > 0) {
    const bytes = readFileSync(path)
    bytes.writeUInt8(dice.roll(256), dice.roll(size))
    writeFileSync(path, bytes)
    // Of the same size and time: only the change time tells.
    utimesSync(path, atime, mtime)
  }
}

for (const seed of seeds) {
  test(`seed ${seed}: an incremental backup is a full one, and every restore is what was there`, async () => {
    using scratch = new Scratch('files')
    const dice = new Dice(seed)
    const [source, target] = [scratch.join('source'), scratch.join('target')]
    mkdirSync(source)
    await using repository = await initRepository(new MemStorage(), 'secret', {
      signal,
      passwordCost,
    })
    const before = process.cwd()
    process.chdir(source)
    try {
      const made: { readonly id: string; readonly tree: readonly string[] }[] = []
      for (let round = 0; round < rounds; round++) {
        for (let count = 0; count < 40; count++) change(source, dice)
        const request = { repository, paths: ['.'], hostname: 'h', signal }
        const incremental = await backupFiles(request)
        const full = await backupFiles({ ...request, force: true })
        assert.equal(incremental.tree, full.tree, `round ${round}`)
        assert.equal(full.summary.data_blobs, 0, `round ${round}`)
        assert.deepEqual(incremental.troubles, [])
        assert.ok(incremental.snapshot)
        made.push({ id: incremental.snapshot.id, tree: describeTree(source) })
        // Over whatever the target was restored to before, and then changed.
        if (round > 0) for (let count = 0; count < 5; count++) change(target, dice)
        const chosen = dice.pick(made)
        const directory = target
        const overwrite = 'always'
        const request2 = { repository, directory, at: chosen.id, overwrite, signal } as const
        const restored = await restoreFiles({ ...request2, removeOthers: true })
        assert.deepEqual(restored.troubles, [], `round ${round}`)
        assertSameTree(describeTree(target), chosen.tree, `round ${round}`)
        for await (const { kind, path, said } of compareFiles(request2))
          assert.fail(`round ${round}: ${kind} ${path.toString()}: ${said}`)
      }
      assert.ok(readdirSync(source).length > 0)
    } finally {
      process.chdir(before)
    }
  })
}
