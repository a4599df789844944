import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { judgeImport, readImports } from './imports.ts'
import { isNeed, suffixesOf } from './needs.ts'
import { isRoom, rooms } from './rooms.ts'

const sources = globSync('{src,test,tools,bench}/**/*.ts')
  .filter((file) => !file.includes('node_modules'))
  .sort()
const texts = [
  ...sources,
  ...globSync('{docs,changelog}/**/*.md'),
  ...globSync('*.{md,json,sh}'),
  ...globSync('{tools,wasm}/**/*.{sh,js}'),
  'check',
  'redoubt',
  '.ci/run',
]
const read = (file: string) => readFileSync(file, 'utf8')

test('every import keeps to the table of rooms', (t) => {
  let count = 0
  const wrong = sources.flatMap((file) =>
    readImports(read(file)).flatMap(({ line, specifier }) => {
      count += 1
      const why = judgeImport(file, specifier)
      return why === undefined ? [] : [`${file}:${line}: ${why}`]
    }),
  )
  t.diagnostic(`${sources.length} files, ${count} imports`)
  assert.ok(sources.length > 0 && count > sources.length)
  assert.deepEqual(wrong, [])
})

test('judgeImport() refuses what the table does not allow', () => {
  const cases: readonly (readonly [file: string, specifier: string, ok: boolean])[] = [
    ['src/vault/vault.ts', '#base/faults', true],
    ['src/vault/vault.ts', '#storage', true],
    ['src/vault/vault.ts', '#engines', false],
    ['src/vault/vault.ts', '#vault', false],
    ['src/vault/vault.ts', '#nowhere', false],
    ['src/vault/vault.ts', '../storage/storage.ts', false],
    ['src/vault/a/b.ts', '../vault.ts', true],
    ['src/vault/vault.ts', './other', false],
    ['src/vault/vault.test.ts', '../../test/support/scratch.ts', true],
    ['src/vault/vault.ts', '../../test/support/scratch.ts', false],
    ['src/backup/protect.ts', '#engines/all', false],
    ['src/service/service.ts', '#engines/all', true],
    ['src/engines/mysql/probe.ts', '../postgres/lsn.ts', false],
    ['src/engines/mysql/probe.ts', '../engine.ts', true],
    ['src/engines/mysql/probe.ts', '#engines', true],
    ['src/engines/all.ts', '#engines', false],
    ['src/engines/mysql/probe.ts', './protocol/packet.ts', true],
    ['src/engines/all.ts', './mysql/mysql.ts', true],
    ['tools/errors.ts', '#base/faults', true],
    ['tools/errors.ts', '#vault', false],
    ['test/system/demo.system.test.ts', '#vault', true],
    ['test/system/demo.system.test.ts', '../../src/vault/vault.ts', true],
    ['tools/check.ts', '../src/vault/vault.ts', false],
  ]
  for (const [file, specifier, ok] of cases) {
    assert.equal(judgeImport(file, specifier) === undefined, ok, `${file} imports ${specifier}`)
  }
})

test('readImports() finds every form of import', () => {
  const text = [
    "import './a.ts'",
    "import type { A } from './b.ts'",
    'import {',
    '  B,',
    "} from './c.ts'",
    "export { C } from './d.ts'",
    "const lazy = await import('./e.ts')",
    "new Worker(new URL('./f.ts', import.meta.url))",
  ].join('\n')
  const found = readImports(text).map(({ specifier }) => specifier)
  assert.deepEqual(found, ['./a.ts', './b.ts', './c.ts', './d.ts', './e.ts', './f.ts'])
})

test('every folder of src is a room of the table', () => {
  const folders = new Set(sources.filter((f) => f.startsWith('src/')).map((f) => f.split('/')[1]))
  assert.deepEqual(
    [...folders].filter((name) => name === undefined || !isRoom(name)),
    [],
  )
  assert.ok(Object.keys(rooms).length > 0)
})

test('every test says what it needs by a suffix that ./check knows', () => {
  const tests = sources.filter((file) => file.endsWith('.test.ts'))
  const unknown = tests.filter((file) => !suffixesOf(file).every(isNeed))
  const silent = tests.filter(
    (file) => /^test\/(system|soak|sim)\//.test(file) && suffixesOf(file).length === 0,
  )
  assert.ok(tests.length > 0)
  assert.deepEqual([...unknown, ...silent], [])
})

// Written in pieces, so that this file does not find itself.
const forbidden: readonly (readonly [pattern: RegExp, what: string, where?: RegExp])[] = [
  [new RegExp('\\b(FIX' + 'ME|X' + 'XX)\\b'), 'unfinished work'],
  [/catch\s*(\([^)]*\))?\s*\{\s*\}/, 'a swallowed error'],
  [/\.catch\(\s*\(\)\s*=>\s*\{\s*\}\s*\)/, 'a swallowed error'],
  [
    new RegExp('["\'` (]/(wo' + 'rk|ro' + 'ot|ho' + 'me)/\\w'),
    'a path of one machine',
    /\.(ts|sh|js)$/,
  ],
  [new RegExp('/t' + 'mp/(brief|scratch)'), 'a path of one machine'],
  [/console\.log\(/, 'output past the display', /^src\/(?!.*\.test\.ts$)/],
  [new RegExp('TO' + 'DO(?!\\(#\\d+\\))'), 'work without an issue'],
]

test('no file holds what the house forbids', () => {
  const found = texts.flatMap((file) =>
    read(file)
      .split('\n')
      .flatMap((line, index) =>
        forbidden
          .filter(([pattern, _what, where]) => pattern.test(line) && (where?.test(file) ?? true))
          .map(([, what]) => `${file}:${index + 1}: ${what}: ${line.trim().slice(0, 100)}`),
      ),
  )
  assert.ok(texts.length > sources.length)
  assert.deepEqual(found, [])
})

test('long files and functions are listed, for a look', (t) => {
  const lengths: number[] = []
  for (const file of sources) {
    const lines = read(file).split('\n')
    if (lines.length > 400) t.diagnostic(`${file}: ${lines.length} lines`)
    for (const { line, length, name } of readFunctions(lines)) {
      if (!file.endsWith('.test.ts')) lengths.push(length)
      if (length > 60) t.diagnostic(`${file}:${line}: ${name} has ${length} lines`)
    }
  }
  lengths.sort((a, b) => a - b)
  t.diagnostic(`${lengths.length} functions, median ${lengths[lengths.length >> 1]} lines`)
  assert.ok(lengths.length > 0)
})

const functionStart =
  /^( *)(?:export )?(?:async )?(?:function\*? (\w+)|(?:static |async |override |get |set |\*)*(#?\w+)\(.*\) ?.*)\{$|^( *)(?:export )?(?:async )?function\*? (\w+)[<(]/

/** Functions of formatted code, by indentation: from the line that names one to the brace in its column. */
function readFunctions(
  lines: readonly string[],
): { readonly line: number; readonly length: number; readonly name: string }[] {
  return lines.flatMap((text, index) => {
    const match = functionStart.exec(text)
    const name = match?.[2] ?? match?.[3] ?? match?.[5]
    // A call with an arrow function looks like a method, but for the arrow.
    if (!match || name === undefined || text.endsWith('=> {')) return []
    if (/^(if|for|while|switch|catch)$/.test(name)) return []
    const end = lines.indexOf(`${match[1] ?? match[4] ?? ''}}`, index)
    return end < 0 ? [] : [{ line: index + 1, length: end - index + 1, name }]
  })
}
