/** A piece of a statement: names without their quotes; strings and comments as they stand. */
export type Word = {
  readonly kind: 'name' | 'word' | 'string' | 'comment' | 'sign'
  readonly text: string
  readonly start: number
  readonly end: number
}

const space = /\s+/y
const word = /[\p{L}\p{N}_$\u0080-\uffff]+/uy
const lineComment = /(?:--(?=\s|$)|#)[^\n]*/y
/** Comments for versions hold code: only their ends are passed over. */
const versioned = /\/\*M?!\d*|\*\//y
const comment = /\/\*(?!M?!).*?\*\//sy

/** Reads the words of a statement. With `ansiQuotes` double quotes hold names, with `plainBackslash` strings escape nothing. */
export function* readWords(
  text: string,
  modes: { readonly ansiQuotes?: boolean; readonly plainBackslash?: boolean } = {},
): Generator<Word, void, void> {
  let at = 0
  const match = (pattern: RegExp) => {
    pattern.lastIndex = at
    return pattern.exec(text)?.[0].length ?? 0
  }
  while (at < text.length) {
    const start = at
    const char = text[at] ?? ''
    const skipped = match(space) || match(versioned)
    if (skipped > 0) {
      at += skipped
      continue
    }
    const said = match(lineComment) || match(comment)
    if (said > 0) {
      at += said
      yield { kind: 'comment', text: text.slice(start, at), start, end: at }
    } else if (char === '`' || char === "'" || char === '"') {
      const isName = char === '`' || (char === '"' && modes.ansiQuotes === true)
      at = closing(text, at, !isName && modes.plainBackslash !== true)
      const inner = text.slice(start + 1, at - 1)
      if (isName) yield { kind: 'name', text: inner.replaceAll(char + char, char), start, end: at }
      else yield { kind: 'string', text: text.slice(start, at), start, end: at }
    } else {
      const size = match(word)
      at += size || 1
      yield { kind: size > 0 ? 'word' : 'sign', text: text.slice(start, at), start, end: at }
    }
  }
}

/** Behind the quote that ends what begins here. */
function closing(text: string, start: number, escapes: boolean): number {
  const quote = text[start]
  for (let at = start + 1; at < text.length; at++) {
    if (escapes && text[at] === '\\') at += 1
    else if (text[at] === quote) {
      if (text[at + 1] !== quote) return at + 1
      at += 1
    }
  }
  return text.length
}

/** A statement with other words at some places; the places ascend and do not overlap. */
export function replaceAt(
  text: string,
  places: readonly { readonly start: number; readonly end: number; readonly by: string }[],
): string {
  let out = ''
  let at = 0
  for (const { start, end, by } of places) {
    out += text.slice(at, start) + by
    at = end
  }
  return out + text.slice(at)
}

/** The same text with the insides of strings and comments blank, so that words in it are the statement's own. */
export function maskStrings(text: string): string {
  const places = [...readWords(text)]
    .filter(({ kind }) => kind === 'string' || kind === 'comment' || kind === 'name')
    .map(({ start, end }) => ({
      start,
      end,
      by:
        text.slice(start, start + 1) +
        ' '.repeat(Math.max(0, end - start - 2)) +
        text.slice(end - 1, end),
    }))
  return replaceAt(text, places)
}
