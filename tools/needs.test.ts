import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { matrix, needs, suffixesOf } from './needs.ts'

test('suffixesOf() reads what a test needs off its name', () => {
  const cases: Readonly<Record<string, readonly string[]>> = {
    'src/vault/vault.test.ts': [],
    'src/vault/vault.s3.test.ts': ['s3'],
    'test/system/points.postgres.s3.test.ts': ['postgres', 's3'],
  }
  for (const [file, wanted] of Object.entries(cases)) assert.deepEqual(suffixesOf(file), wanted)
})

test('every service of a need is one that fetch.sh has', () => {
  const listed = execFileSync('bash', ['tools/services/fetch.sh', '--list'], { encoding: 'utf8' })
  const names = new Set(listed.split('\n').map((line) => line.split('\t')[0]))
  const wanted = [...Object.values(needs).flat(), ...matrix.flatMap(({ services }) => services)]
  assert.ok(wanted.length > 5)
  // A package of a named suite needs no entry in the list.
  const unknown = wanted.filter((n) => n !== 'npm' && !n.includes('@') && !names.has(n))
  assert.deepEqual(unknown, [])
})
