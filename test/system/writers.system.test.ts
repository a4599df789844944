import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { Guarded } from '../support/guarded.ts'

test('backups, a prune and a check of one vault at the same time: everything comes back', async () => {
  using guarded = await Guarded.begin('writers')
  const { scratch, vault } = guarded
  const trees = ['a', 'b'].map((name) => {
    const folder = scratch.join(`tree ${name} "quoted" 😀\nline`)
    mkdirSync(folder)
    for (let n = 0; n < 20; n++) {
      // Half of it in both trees: both backups want to store the same chunks.
      const own = n % 2 === 0 ? 'shared' : name
      writeFileSync(path.join(folder, `file '${n}'`), `${own} ${n} `.repeat(20_000))
    }
    return folder
  })
  const [first = '', second = ''] = trees
  // What a prune has to do: a snapshot that is forgotten, and its data.
  writeFileSync(path.join(first, 'old'), 'old '.repeat(100_000))
  await guarded.done('backup', '--source', first, '--vault', vault)
  execFileSync('rm', [path.join(first, 'old')])
  await guarded.done('backup', '--source', first, '--vault', vault)
  await guarded.done('vault', 'forget', '--keep-last', '1', '--vault', vault)
  const ran = await Promise.all([
    guarded.run('backup', '--source', first, '--vault', vault),
    guarded.run('backup', '--source', second, '--vault', vault),
    guarded.run('vault', 'prune', '--vault', vault),
    guarded.run('vault', 'check', '--vault', vault),
  ])
  // A prune needs the vault alone: who meets it waits, as it does itself.
  for (const { code, said } of ran) assert.equal(code, 0, said)
  await guarded.done('vault', 'prune', '--vault', vault)
  await guarded.done('vault', 'check', '--read-data', '--vault', vault)
  for (const tree of trees) {
    const to = `${tree} restored`
    const args = ['--vault', vault, '--source', tree, '--subpath', tree, '--to', to]
    await guarded.done('restore', ...args)
    assert.deepEqual(contents(to), contents(tree))
  }
})

test('a sparse file of 100 GB and an empty one come back as they were', async () => {
  using guarded = await Guarded.begin('sparse')
  const tree = guarded.scratch.join('tree')
  mkdirSync(tree)
  writeFileSync(path.join(tree, 'empty'), '')
  const sparse = path.join(tree, 'sparse')
  writeFileSync(sparse, 'begin')
  truncateSync(sparse, 100_000_000_000)
  execFileSync('sh', ['-c', `printf end >> "$1"`, 'sh', sparse])
  await guarded.done('backup', '--source', tree, '--vault', guarded.vault)
  const to = guarded.scratch.join('restored')
  await guarded.done('restore', '--vault', guarded.vault, '--subpath', tree, '--to', to)
  assert.equal(statSync(path.join(to, 'empty')).size, 0)
  const back = statSync(path.join(to, 'sparse'))
  assert.equal(back.size, 100_000_000_003)
  assert.ok(back.blocks * 512 < 1_000_000, `${back.blocks} blocks are allocated`)
  const ends = execFileSync('sh', [
    '-c',
    'head -c 5 "$1"; tail -c 3 "$1"',
    'sh',
    path.join(to, 'sparse'),
  ])
  assert.equal(ends.toString(), 'beginend')
})

function contents(folder: string): Record<string, string> {
  const names = readdirSync(folder).toSorted()
  return Object.fromEntries(
    names.map((name) => [name, readFileSync(path.join(folder, name), 'utf8')]),
  )
}
