import type { Session } from './protocol/session.ts'
import type { Flavor } from './flavor.ts'
import { readWords, replaceAt, type Word } from './sql-words.ts'

/** The three-byte character set has two names. */
function plain(name: string): string {
  return name.toLowerCase().replace(/^utf8mb3(?=_|$)/, 'utf8')
}

/** Collations of a server, under the names of both families. */
export async function readCollations(
  session: Session,
  flavor: Flavor,
  signal: AbortSignal,
): Promise<ReadonlySet<string>> {
  const full = flavor.family === 'mariadb' && flavor.number >= 101_001
  const rows = await session.texts(
    `SELECT COLLATION_NAME${full ? ', FULL_COLLATION_NAME' : ''} FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY`,
    { signal },
  )
  return new Set(rows.flatMap((row) => row.map((name) => plain(name ?? ''))))
}

/** Each character set's own collation, which servers leave unsaid, and which differs from version to version. */
export async function readDefaultCollations(
  session: Session,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, string>> {
  const rows = await session.texts(
    'SELECT CHARACTER_SET_NAME, DEFAULT_COLLATE_NAME FROM information_schema.CHARACTER_SETS',
    { signal },
  )
  return new Map(rows.map(([set, collation]) => [plain(set ?? ''), collation ?? '']))
}

/** Behind each character set its collation, where the statement leaves it out. */
export function sayCollations(sql: string, defaults: ReadonlyMap<string, string>): string {
  const words = [...readWords(sql)]
  const places = words.flatMap((word, at) => {
    const own = defaults.get(plain(word.text))
    if (own === undefined || !isCharset(words, at)) return []
    if (words[at + 1]?.text === 'COLLATE') return []
    return [{ start: word.end, end: word.end, by: ` COLLATE ${own}` }]
  })
  return replaceAt(sql, places)
}

/** Of `CHARSET=x`, `CHARACTER SET x`; in a cast the server writes it in small letters. */
function isCharset(words: readonly Word[], at: number): boolean {
  const back = (by: number) => words[at - by]?.text
  if (words[at]?.kind !== 'word') return false
  if (back(1) === '=') return back(2) === 'CHARSET'
  return back(1) === 'SET' && back(2) === 'CHARACTER'
}

/** What a server that lacks a collation has instead, the nearest first. */
function counterparts(name: string): string[] {
  const newer = /^utf8mb4_(\w+_)?0900_(ai_ci|as_ci|as_cs|bin)$/.exec(name)
  if (newer) {
    const [, language = '', kind = ''] = newer
    if (kind === 'bin') return ['utf8mb4_nopad_bin', 'utf8mb4_bin']
    const near = language === '' ? [`utf8mb4_uca1400_nopad_${kind}`] : []
    const old = kind === 'ai_ci' && language === ''
    return [...near, ...(old ? ['utf8mb4_unicode_520_nopad_ci', 'utf8mb4_unicode_520_ci'] : [])]
  }
  const mariadb = /^(utf8mb4|utf8|ucs2|utf16|utf32)_uca1400_(?:nopad_)?(ai_ci|as_ci|as_cs)$/.exec(
    name,
  )
  if (mariadb) {
    const [, set = '', kind = ''] = mariadb
    const near = set === 'utf8mb4' ? [`utf8mb4_0900_${kind}`] : []
    return [...near, ...(kind === 'ai_ci' ? [`${set}_unicode_520_ci`] : [])]
  }
  return name.includes('_nopad_') ? [name.replace('_nopad_', '_')] : []
}

/** A collation that a target lacks, and the nearest that it has. */
export type Lacking = { readonly name: string; readonly instead: string | undefined }

/** A statement with the collations that the target has. Where it has nothing near, the statement keeps what it said. */
export function mapCollations(
  sql: string,
  there: ReadonlySet<string>,
): { readonly sql: string; readonly lacking: readonly Lacking[] } {
  const words = [...readWords(sql)]
  const lacking: Lacking[] = []
  const places = words.flatMap((word, at) => {
    if (word.kind !== 'word' || there.has(plain(word.text))) return []
    const before = words[at - 1]?.text === '=' ? words[at - 2] : words[at - 1]
    if (!/^(?:COLLATE|collation_connection)$/i.test(before?.text ?? '')) return []
    const instead = counterparts(plain(word.text)).find((name) => there.has(name))
    lacking.push({ name: word.text, instead })
    return instead === undefined ? [] : [{ start: word.start, end: word.end, by: instead }]
  })
  return { sql: replaceAt(sql, places), lacking }
}
