import { isUtf8 } from 'node:buffer'
import { Fault } from '#base/faults'

/**
 * Patterns over paths, with the meaning that restic's users know
 * (https://restic.readthedocs.io/en/stable/040_backup.html#excluding-files): shell wildcards that do not cross a
 * `/`, `**` for any number of whole components, a leading `/` ties the pattern to the root, any other pattern
 * may begin at every component. What matches, matches with all that is below it. `!` in front takes back what
 * an earlier pattern matched.
 */
export interface Patterns {
  readonly count: number
  matches(path: string): boolean
  /** Whether something below this path might match, so that a directory has to be entered for it. */
  mayMatchBelow(path: string): boolean
}

type Pattern = {
  readonly negated: boolean
  readonly whole: RegExp
  /** For paths above what could match; undefined when the pattern may begin anywhere. */
  readonly above?: RegExp | undefined
}

/** Compiles patterns; `insensitive` ignores case. Throws `usage` for one that makes no sense. */
export function compilePatterns(
  texts: readonly string[],
  options: { readonly insensitive?: boolean | undefined } = {},
): Patterns {
  const patterns = texts.map((text) => compile(text, options.insensitive ?? false))
  // Every component that is matched ends in a `/`, the last one too.
  const fold = (path: string) => {
    const closed = path.endsWith('/') ? path : `${path}/`
    return options.insensitive ? closed.toLowerCase() : closed
  }
  return {
    count: patterns.length,
    matches: (path) => {
      let matched = false
      const folded = fold(path)
      for (const { negated, whole } of patterns) {
        if (matched === negated && whole.test(folded)) matched = !negated
      }
      return matched
    },
    mayMatchBelow: (path) => {
      let may = false
      const folded = fold(path)
      for (const { negated, whole, above } of patterns) {
        if (negated) may &&= !whole.test(folded)
        else may ||= above === undefined || above.test(folded)
      }
      return may
    },
  }
}

/** Several sets of patterns as one: a path matches when any of them says so. */
export function anyPatterns(sets: readonly Patterns[]): Patterns {
  const used = sets.filter((set) => set.count > 0)
  return {
    count: used.reduce((sum, set) => sum + set.count, 0),
    matches: (path) => used.some((set) => set.matches(path)),
    mayMatchBelow: (path) => used.some((set) => set.mayMatchBelow(path)),
  }
}

/**
 * A path as text for matching. Bytes that are no UTF-8 become lone surrogates, one each, so that different
 * names stay different and `?` matches one of them.
 */
export function patternText(path: Buffer): string {
  if (isUtf8(path)) return path.toString('utf8')
  let text = ''
  for (let at = 0; at < path.length; ) {
    const size = characterSize(path, at)
    text +=
      size > 0
        ? path.toString('utf8', at, at + size)
        : String.fromCharCode(0xdc00 + path.readUInt8(at))
    at += Math.max(size, 1)
  }
  return text
}

function characterSize(bytes: Buffer, at: number): number {
  for (let size = 1; size <= 4 && at + size <= bytes.length; size++) {
    if (isUtf8(bytes.subarray(at, at + size))) return size
  }
  return 0
}

function compile(text: string, insensitive: boolean): Pattern {
  const negated = text.startsWith('!')
  const body = negated ? text.slice(1) : text
  if (body === '') throw new Fault('usage', `read the pattern ${JSON.stringify(text)}: it is empty`)
  const parts = cleanParts(insensitive ? body.toLowerCase() : body)
  const sources = parts.map((part) =>
    part === '**' ? '(?:[^/]+/)*' : `${componentSource(part, text)}/`,
  )
  const rooted = body.startsWith('/')
  const start = rooted ? '^/' : '(?:^|/)'
  return {
    negated,
    whole: new RegExp(`${start}${sources.join('')}`, 'su'),
    above: rooted ? aboveSource(parts, sources) : undefined,
  }
}

/** Matches the paths above, at and below what a rooted pattern matches. */
function aboveSource(parts: readonly string[], sources: readonly string[]): RegExp {
  const end = parts.indexOf('**')
  const fixed = end < 0 ? sources : sources.slice(0, end)
  const nested = fixed.reduceRight((rest, source) => `(?:$|${source}${rest})`, '')
  return new RegExp(`^/${nested}`, 'su')
}

/** Components without empty and `.` ones, `..` resolved as far as it can be. */
function cleanParts(body: string): string[] {
  const parts: string[] = []
  for (const part of body.split('/')) {
    if (part === '' || part === '.') continue
    if (part === '..' && parts.length > 0 && parts.at(-1) !== '..') parts.pop()
    else if (part !== '..' || !body.startsWith('/')) parts.push(part)
  }
  return parts
}

/** One component: `*`, `?`, `[a-z]`, `[^a-z]`, and `\` before what is meant literally. */
function componentSource(part: string, text: string): string {
  const malformed = () =>
    new Fault(
      'usage',
      `read the pattern ${JSON.stringify(text)}: ${JSON.stringify(part)} is malformed`,
    )
  const characters = Array.from(part)
  let source = ''
  for (let at = 0; at < characters.length; at++) {
    const character = characters[at] ?? ''
    if (character === '*') source += '[^/]*'
    else if (character === '?') source += '[^/]'
    else if (character === '\\') {
      const next = characters[++at]
      if (next === undefined) throw malformed()
      source += RegExp.escape(next)
    } else if (character === '[') {
      const set = characterSet(characters, at + 1)
      if (!set) throw malformed()
      source += set.source
      at = set.end
    } else source += RegExp.escape(character)
  }
  return source
}

/** A set from behind its `[`; undefined when it is malformed. */
function characterSet(
  characters: readonly string[],
  start: number,
): { readonly source: string; readonly end: number } | undefined {
  let at = start
  const negated = characters[at] === '^'
  if (negated) at++
  const take = (): string | undefined => {
    const character = characters[at++]
    if (character === '-' || character === ']') return undefined
    return character === '\\' ? characters[at++] : character
  }
  const ranges: string[] = []
  while (characters[at] !== ']' || ranges.length === 0) {
    const low = take()
    if (low === undefined) return undefined
    let high = low
    if (characters[at] === '-') {
      at++
      const end = take()
      if (end === undefined) return undefined
      high = end
    }
    // A range that runs backwards holds nothing.
    if ((low.codePointAt(0) ?? 0) <= (high.codePointAt(0) ?? 0))
      ranges.push(`${escapeInSet(low)}-${escapeInSet(high)}`)
    else ranges.push('')
  }
  const held = ranges.join('')
  if (negated) return { source: held === '' ? '[^/]' : `(?!/)[^${held}]`, end: at }
  return { source: held === '' ? '[]' : `(?!/)[${held}]`, end: at }
}

function escapeInSet(character: string): string {
  return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`
}
