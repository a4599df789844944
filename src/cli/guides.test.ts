import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { createProgram, surface } from './command-line.ts'

const home = path.resolve(import.meta.dirname, '../..')
const pages = globSync('{README*.md,ARCHITECTURE.md,docs/**/*.md,changelog/**/*.md}', { cwd: home })

type Line = { readonly where: string; readonly words: readonly string[] }

/** The words of a shell command up to a comment, a pipe or a redirection. */
function splitWords(line: string): string[] {
  const pattern = /'([^']*)'|"((?:[^"\\]|\\.)*)"|((?:[^\s'"\\|&;<>]|\\.)+)|(\s+)|([|&;<>])/gy
  const words: string[] = []
  let joins = false
  for (const [text, single, double, bare, space, end] of line.matchAll(pattern)) {
    if (end !== undefined || (bare?.startsWith('#') && !joins)) break
    if (space !== undefined) {
      joins = false
      continue
    }
    const word = single ?? double ?? bare ?? text
    if (joins) words.push(`${words.pop()}${word}`)
    else words.push(word)
    joins = true
  }
  return words
}

function commandsIn(text: string, where: string): Line[] {
  // A drawing is no list of commands.
  if (text.includes('─')) return []
  return text
    .replaceAll(/\\\n\s*/g, ' ')
    .split('\n')
    .flatMap((line) => {
      const command = /^\s*(?:\$ )?(?:\.\/)?redoubt (.+)$/.exec(line)?.[1]
      return command === undefined || purpose.test(command)
        ? []
        : [{ where, words: splitWords(command) }]
    })
}

/** Whole command lines: what stands in fenced blocks, and the examples of the help pages. */
function wholeLines(): Line[] {
  const examples = verbsOf().flatMap(({ name, verb }) =>
    verb.examples.flatMap(([line]) => commandsIn(line, `the help of ${name}`)),
  )
  const fenced = pages.flatMap((page) =>
    [
      ...readFileSync(path.join(home, page), 'utf8').matchAll(/^( *)```\w*\n(.*?)^\1```/gms),
    ].flatMap(([, , block = '']) => commandsIn(block, page)),
  )
  return [...examples, ...fenced]
}

/** What stands in the text as code: often a part of a command only. */
function inlineLines(): Line[] {
  return pages.flatMap((page) => {
    const text = readFileSync(path.join(home, page), 'utf8').replaceAll(/^ *```.*?^ *```/gms, '')
    return [...text.matchAll(/`([^`\n]+)`/g)].flatMap(([, code = '']) => commandsIn(code, page))
  })
}

function verbsOf() {
  return surface().verbs.flatMap((entry) =>
    'verbs' in entry
      ? entry.verbs.map((verb) => ({ name: `${entry.name} ${verb.name}`, verb }))
      : [{ name: entry.name, verb: entry }],
  )
}

/** `help` is the parser's own, `wal-fetch` is PostgreSQL's to call. */
const others = /^(?:help|wal-fetch|--version|VERB)$/
/** The purposes that signatures are made for look like commands. */
const purpose = / v\d+$|^log record$/

test('every command line of the guides and help pages is one that the parser takes', async () => {
  const lines = wholeLines().filter(({ words: [verb = ''] }) => !others.test(verb))
  assert.ok(lines.length > 60, `${lines.length} command lines`)
  const refused: string[] = []
  for (const { where, words } of lines) {
    let ran = 0
    const program = createProgram(async () => void (ran += 1))
    const line = `${where}: redoubt ${words.join(' ')}`
    await program.parseAsync([...words], { from: 'user' }).catch(() => undefined)
    if (ran !== 1) refused.push(line)
  }
  assert.deepEqual(refused, [])
})

test('verbs and options that the text names are there', () => {
  const verbs = new Map(verbsOf().map(({ name, verb }) => [name, verb]))
  const groups = new Set(surface().verbs.flatMap((entry) => ('verbs' in entry ? entry.name : [])))
  const common = surface().common.map(({ flags }) => flags)
  const lines = inlineLines().filter(({ words: [verb = ''] }) => !others.test(verb))
  assert.ok(lines.length > 20, `${lines.length} mentions`)
  const unknown: string[] = []
  for (const { where, words } of lines) {
    const said = `${where}: redoubt ${words.join(' ')}`
    const [first = '', second] = words
    // `redoubt vault` alone tells of the group.
    if (groups.has(first) && second === undefined) continue
    const verb = verbs.get(groups.has(first) ? `${first} ${second?.split('|')[0]}` : first)
    if (!verb) unknown.push(said)
    const known = [...(verb?.options ?? []).map(({ flags }) => flags), ...common, '--help']
    for (const word of words) {
      const option = /^--[a-z-]+/.exec(word)?.[0]
      if (option === undefined) continue
      if (!known.some((flags) => new RegExp(`${option}(?![a-z-])`).test(flags))) unknown.push(said)
    }
  }
  assert.deepEqual(unknown, [])
})
