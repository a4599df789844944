import { Fault } from '#base/faults'
import type { Finding } from '#change/finding'
import type { ObjectName, Schema, Selection } from '#change/schema'

/** What the user chose, as it was written: kept in the link's state. */
export type Choices = {
  readonly include: readonly string[]
  readonly exclude: readonly string[]
  /** Lines of a map file: see `parseMap`. */
  readonly map: string
  readonly accounts: boolean
  /** What the target lacks becomes the nearest that it has. */
  readonly convert: boolean
}

/** Reads patterns and names; refuses what makes no sense with `usage`. */
export function createSelection(choices: Choices): Selection {
  const included = choices.include.map((text) => parsePattern('--include', text))
  const excluded = choices.exclude.map((text) => parsePattern('--exclude', text))
  const renames = parseMap(choices.map)
  const accepts = (name: ObjectName) => {
    if (included.length > 0 && !included.some((pattern) => reaches(pattern, name))) return false
    return !excluded.some((pattern) => covers(pattern, name))
  }
  return { accepts, map: (name) => renamed(renames, name), accounts: choices.accounts }
}

/** Patterns and names that meet nothing (a slip of the pen, mostly), and tables that would meet on the target. */
export function selectionFindings(choices: Choices, schema: Schema): Finding[] {
  const names = schema.objects.flatMap(({ name, table }) => (table ? [name, table] : [name]))
  names.push(...schema.tables.map(({ name }) => name))
  const found: Finding[] = []
  for (const text of choices.include) {
    const pattern = parsePattern('--include', text)
    if (names.some((name) => name.length > 1 && covers(pattern, name))) continue
    const said = `--include ${text}: nothing on the source has such a name`
    found.push({ severity: 'blocks', code: 'nothing-included', said })
  }
  for (const { from } of parseMap(choices.map)) {
    if (names.some((name) => from.every((part, index) => name[index] === part))) continue
    const said = `--map: nothing that is carried is called ${formatName(from)}`
    found.push({ severity: 'warns', code: 'nothing-renamed', said })
  }
  const targets = new Map<string, ObjectName>()
  for (const { name, target } of schema.tables) {
    const key = JSON.stringify(target)
    const other = targets.get(key)
    targets.set(key, name)
    if (!other) continue
    const both = `${formatName(other)} and ${formatName(name)}`
    const said = `${both} would both become ${formatName(target)}: tables are not merged yet`
    found.push({ severity: 'blocks', code: 'same-target', said })
  }
  return found
}

/** `shop.orders`, with quotes where a part needs them to be read again. */
export function formatName(name: ObjectName): string {
  return name
    .map((part) => (/^[^".*=#\s]+$/.test(part) ? part : `"${part.replaceAll('"', '""')}"`))
    .join('.')
}

type Pattern = { readonly first: RegExp; readonly second: RegExp; readonly whole: boolean }

/** Whether a name, or something below it, is meant: a database is made for the tables in it. */
function reaches({ first, second }: Pattern, [head = '', ...rest]: ObjectName): boolean {
  return first.test(head) && (rest[0] === undefined || second.test(rest[0]))
}

/** Whether a name and all below it is meant. */
function covers({ first, second, whole }: Pattern, [head = '', ...rest]: ObjectName): boolean {
  return first.test(head) && (rest[0] === undefined ? whole : second.test(rest[0]))
}

/** Reads `database`, `database.table`, `schema.table`, each with `*`; a part in double quotes is taken as it stands. */
function parsePattern(option: string, text: string): Pattern {
  const [first, second = { text: '*', quoted: false }, ...more] = splitName(text)
  if (!first || more.length > 0) {
    throw new Fault('usage', `read ${option}: '${text}' is not a pattern`, {
      hint: 'Write database.table (on PostgreSQL schema.table), * standing for any run of characters.',
    })
  }
  const whole = !second.quoted && second.text === '*'
  return { first: toRegExp(first), second: toRegExp(second), whole }
}

type Rename = { readonly from: ObjectName; readonly to: ObjectName }

/**
 * Reads a map file: a line `shop = store` renames a database (on PostgreSQL a schema), a line `shop.orders = store.sales` a
 * table, which wins. Empty lines and those that begin with `#` say nothing.
 */
export function parseMap(text: string): readonly Rename[] {
  const renames: Rename[] = []
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    if (/^\s*(#|$)/.test(line)) continue
    const rename = parseRename(line)
    const refuse = (why: string) =>
      new Fault('usage', `read --map, line ${index + 1}: ${why}`, {
        hint: 'Write shop = store for a database, shop.orders = store.sales for a table; quote a part with other characters.',
      })
    if (!rename) throw refuse(`'${line.trim()}' is not old = new`)
    const { from, to } = rename
    if (from.length !== to.length) {
      throw refuse(`${formatName(from)} and ${formatName(to)} have not as many parts`)
    }
    for (const other of renames) {
      if (formatName(other.from) === formatName(from))
        throw refuse(`${formatName(from)} is renamed twice`)
    }
    renames.push(rename)
  }
  return renames
}

function parseRename(line: string): Rename | undefined {
  // The first equals sign that stands outside of quotes.
  const match = /^((?:"(?:[^"]|"")*"|[^"=])*)=(.*)$/s.exec(line)
  const [from, to] = [match?.[1], match?.[2]].map((side) => plainName(side?.trim() ?? ''))
  return from && to ? { from, to } : undefined
}

function plainName(text: string): ObjectName | undefined {
  const parts = splitName(text)
  if (parts.length === 0 || parts.length > 2) return undefined
  if (parts.some((part) => !part.quoted && /[*=]/.test(part.text))) return undefined
  return parts.map((part) => part.text)
}

function renamed(renames: readonly Rename[], name: ObjectName): ObjectName {
  for (const length of [2, 1]) {
    if (name.length < length) continue
    const found = renames.find(
      ({ from }) => from.length === length && from.every((part, index) => part === name[index]),
    )
    if (found) return [...found.to, ...name.slice(length)]
  }
  return name
}

type Part = { readonly text: string; readonly quoted: boolean }

/** The parts of a dotted name; none when it is no name. */
function splitName(text: string): Part[] {
  const parts: Part[] = []
  for (let rest = text; ; ) {
    const match = /^(?:"((?:[^"]|"")*)"|([^".\s][^".]*))(\.|$)/s.exec(rest)
    if (!match) return []
    const [whole, quoted, plain = '', end] = match
    const part =
      quoted === undefined
        ? { text: plain, quoted: false }
        : { text: quoted.replaceAll('""', '"'), quoted: true }
    if (part.text === '') return []
    parts.push(part)
    if (end === '') return parts
    rest = rest.slice(whole.length)
  }
}

function toRegExp({ text, quoted }: Part): RegExp {
  const pieces = quoted ? [text] : text.split('*')
  return new RegExp(`^${pieces.map((piece) => RegExp.escape(piece)).join('.*')}$`, 's')
}
