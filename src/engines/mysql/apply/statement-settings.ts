import type { Collation } from '../binlog/settings.ts'
import type { Flavor } from '../flavor.ts'
import type { Modes } from './statement-parts.ts'

/** Bits of `sql_mode` that both families have, by their names. */
const modeNames: Readonly<Record<number, string>> = {
  0: 'REAL_AS_FLOAT',
  1: 'PIPES_AS_CONCAT',
  2: 'ANSI_QUOTES',
  3: 'IGNORE_SPACE',
  6: 'NO_UNSIGNED_SUBTRACTION',
  19: 'NO_AUTO_VALUE_ON_ZERO',
  20: 'NO_BACKSLASH_ESCAPES',
  21: 'STRICT_TRANS_TABLES',
  22: 'STRICT_ALL_TABLES',
  23: 'NO_ZERO_IN_DATE',
  24: 'NO_ZERO_DATE',
  25: 'ALLOW_INVALID_DATES',
  26: 'ERROR_FOR_DIVISION_BY_ZERO',
  29: 'HIGH_NOT_PRECEDENCE',
  30: 'NO_ENGINE_SUBSTITUTION',
}

function bitsOf(settings: Readonly<Record<string, string>>): bigint {
  const text = settings['@@session.sql_mode'] ?? '0'
  return /^\d+$/.test(text) ? BigInt(text) : 0n
}

/** How the text of a statement is to be read. */
export function modesOf(settings: Readonly<Record<string, string>>): Modes {
  const bits = bitsOf(settings)
  return { ansiQuotes: (bits & (1n << 2n)) !== 0n, plainBackslash: (bits & (1n << 20n)) !== 0n }
}

/** What a definition depends on and the target can be told; the text itself comes in UTF-8. */
export function settingsFor(
  settings: Readonly<Record<string, string>>,
  flavor: Flavor,
  collations: ReadonlyMap<number, Collation>,
): string[] {
  const bits = bitsOf(settings)
  const modes = Object.entries(modeNames)
    .filter(([bit]) => (bits & (1n << BigInt(bit))) !== 0n)
    .map(([, name]) => name)
  const sets = ['SET NAMES utf8mb4', `SET SESSION sql_mode = '${modes.join(',')}'`]
  const plain = [
    '@@session.foreign_key_checks',
    '@@session.auto_increment_increment',
    '@@session.auto_increment_offset',
    '@@session.time_zone',
    'timestamp',
    ...(flavor.family === 'mariadb' ? ['@@session.sql_if_exists'] : []),
  ]
  for (const name of plain) {
    const value = settings[name]
    if (value !== undefined) sets.push(`SET ${name} = ${value}`)
  }
  for (const name of ['collation_connection', 'collation_server', 'collation_database']) {
    const value = settings[`@@session.${name}`]
    const known = value === undefined ? undefined : collations.get(Number(value))
    if (
      known &&
      !(name === 'collation_connection' && /^(?:ucs2|utf16|utf32)/.test(known.charset))
    ) {
      sets.push(`SET @@session.${name} = ${known.name}`)
    }
  }
  return sets
}
