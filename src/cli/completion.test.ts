import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { Scratch } from '../../test/support/scratch.ts'
import { surface } from './command-line.ts'
import { completionScript } from './completion.ts'

const script = completionScript('bash', surface())

/** What bash offers for the last word of a line, cut into words as readline does it; in a folder with one odd file. */
function complete(...words: readonly string[]): string[] {
  using scratch = new Scratch('completion')
  writeFileSync(scratch.join('a file'), '')
  const line = words.map((word) => `'${word.replaceAll("'", String.raw`'\''`)}'`).join(' ')
  const asked = `
    ${script}
    complete -p redoubt > /dev/null || exit 9
    COMP_WORDS=(redoubt ${line}); COMP_CWORD=${words.length}
    _redoubt
    printf '%s\\0' "\${COMPREPLY[@]}"`
  const { stdout, stderr, status } = spawnSync('bash', ['--norc', '-c', asked], {
    cwd: scratch.path,
    encoding: 'utf8',
  })
  assert.deepEqual([stderr, status], ['', 0], line)
  return stdout.split('\0').filter((word) => word !== '')
}

test('bash completes verbs, verbs of a group, options and their values from the option table', () => {
  assert.deepEqual(complete('pro'), ['protect'])
  assert.ok(complete('').includes('restore') && complete('').includes('completion'))
  assert.deepEqual(complete('vault', 'che'), ['check'])
  assert.deepEqual(complete('help', 'win'), ['window'])
  assert.deepEqual(complete('protect', '--dur'), ['--durability'])
  assert.deepEqual(complete('protect', '--durability', ''), ['async', 'strict'])
  assert.deepEqual(complete('protect', '--durability', '=', 's'), ['strict'])
  assert.deepEqual(complete('protect', '--durability', '='), ['async', 'strict'])
  assert.deepEqual(complete('restore', '--vault', 'v', '--overwrite', 'if'), [
    'if-changed',
    'if-newer',
  ])
  assert.deepEqual(complete('vault', 'key', 'en'), ['enrol'])
  assert.deepEqual(complete('vault', 'check', '--read-data-'), ['--read-data-subset'])
  assert.deepEqual(complete('completion', ''), ['bash', 'zsh', 'fish'])
})

test('bash completes paths where an option takes one, odd names included, and nothing where it takes a word', () => {
  assert.deepEqual(complete('backup', '--vault', 'a'), ['a file'])
  assert.deepEqual(complete('restore', '--password-file', ''), ['a file'])
  assert.deepEqual(complete('protect', '--name', ''), [])
  assert.deepEqual(complete('nothing', '--vault', ''), [])
})

test('each option of each verb is in the scripts of all three shells', () => {
  const all = surface()
  const scripts = (['bash', 'zsh', 'fish'] as const).map((shell) => completionScript(shell, all))
  let count = 0
  for (const verb of all.verbs.flatMap((entry) => ('verbs' in entry ? entry.verbs : entry))) {
    for (const { flags } of verb.options) {
      const [long = ''] = /--[a-z0-9-]+/.exec(flags) ?? []
      count += 1
      const [bash, zsh, fish] = scripts
      assert.match(bash ?? '', new RegExp(`options='[^']*${long}[ ']`))
      assert.ok(zsh?.includes(`${long}[`), long)
      assert.ok(fish?.includes(`-l ${long.slice(2)} `), long)
    }
  }
  assert.ok(count > 50, `${count} options`)
})
