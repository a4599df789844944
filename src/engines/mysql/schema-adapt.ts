import type { Finding } from '#change/finding'
import type { SchemaObject } from '#change/schema'
import { adaptForeignKeys, putTogether, splitTop, takeApart } from './ddl.ts'
import type { Flavor } from './flavor.ts'
import { mapCollations } from './schema-collations.ts'
import { readStatement } from './schema-statement.ts'
import { maskStrings } from './sql-words.ts'

/** What a target can hold. */
export type Ability = {
  readonly flavor: Flavor
  readonly collations: ReadonlySet<string>
  /** In capitals. */
  readonly engines: ReadonlySet<string>
}

/** An object as the target says it, and what of it is lost or cannot be. */
export type Adapted = { readonly object: SchemaObject; readonly findings: readonly Finding[] }

type Said = (severity: Finding['severity'], code: string, said: string) => void

/** First version of each family that has a thing; undefined for none. */
type Since = { readonly mysql?: number; readonly mariadb?: number }

function has(flavor: Flavor, since: Since): boolean {
  const first = since[flavor.family]
  return first !== undefined && flavor.number >= first
}

type Feature = {
  readonly code: string
  readonly finds: RegExp
  readonly since: Since
  readonly severity: Finding['severity']
  readonly said: string
}

/** Looked for in each column, key and option of a table, strings and names taken out. */
const features: readonly Feature[] = [
  feature(
    'generated-column',
    /\bGENERATED ALWAYS AS\b/,
    { mysql: 50_706, mariadb: 0 },
    'blocks',
    'generated columns',
  ),
  feature('check', /\bCHECK \(/, { mysql: 80_016, mariadb: 0 }, 'blocks', 'checks'),
  feature('json', /^` *` json\b/, { mysql: 50_708, mariadb: 0 }, 'blocks', 'the type json'),
  feature(
    'expression-default',
    /\bDEFAULT \(/,
    { mysql: 80_013, mariadb: 0 },
    'blocks',
    'defaults that are expressions',
  ),
  feature(
    'function-default',
    /\bDEFAULT (?!current_timestamp)[a-z]\w*\(/i,
    { mysql: 80_013, mariadb: 0 },
    'blocks',
    'defaults that are functions',
  ),
  feature('sequence', /\bnextval\(/i, { mariadb: 100_300 }, 'blocks', 'sequences'),
  feature(
    'functional-index',
    /KEY [^(]*\(.*\(\(/,
    { mysql: 80_013 },
    'blocks',
    'indexes on expressions',
  ),
  feature(
    'functional-index',
    /KEY [^(]*\(\(/,
    { mysql: 80_013 },
    'blocks',
    'indexes on expressions',
  ),
  feature(
    'descending-index',
    /KEY .* DESC\b/,
    { mysql: 80_001, mariadb: 100_801 },
    'notes',
    'descending indexes, and makes an ascending one',
  ),
  feature(
    'spatial-index',
    /SPATIAL KEY/,
    { mysql: 50_705, mariadb: 100_202 },
    'blocks',
    'spatial indexes of InnoDB',
  ),
  feature(
    'vector',
    /^` *` vector\(/,
    { mysql: 90_000, mariadb: 110_701 },
    'blocks',
    'the type vector',
  ),
  feature('vector-index', /VECTOR KEY/, { mariadb: 110_701 }, 'blocks', 'vector indexes'),
  feature(
    'system-versioning',
    /WITH SYSTEM VERSIONING|AS ROW START|PERIOD FOR/,
    { mariadb: 100_300 },
    'blocks',
    'system versioning and periods',
  ),
  feature(
    'invisible-column',
    /(?:^|[^!\d] )INVISIBLE\b(?! \*\/)/,
    { mysql: 80_023, mariadb: 100_303 },
    'blocks',
    'invisible columns',
  ),
  feature(
    'invisible-lost',
    /!80023 INVISIBLE/,
    { mysql: 80_023, mariadb: 100_303 },
    'warns',
    'invisible columns: it is visible there',
  ),
  feature(
    'srid-lost',
    /!80003 SRID/,
    { mysql: 80_003 },
    'warns',
    'a fixed SRID of a column: values of any are taken there',
  ),
  feature(
    'compressed-column',
    /M!100301 COMPRESSED/,
    { mariadb: 100_301 },
    'warns',
    'compressed columns: it is stored plainly there',
  ),
]

function feature(
  code: string,
  finds: RegExp,
  since: Since,
  ...[severity, what]: readonly [Finding['severity'], string]
): Feature {
  return { code, finds, since, severity, said: `the target does not know ${what}` }
}

/** Types of MariaDB alone, and text that holds them. */
const textFor: Readonly<Record<string, string>> = {
  uuid: 'char(36) CHARACTER SET ascii COLLATE ascii_general_ci',
  inet4: 'varchar(15) CHARACTER SET ascii COLLATE ascii_general_ci',
  inet6: 'varchar(39) CHARACTER SET ascii COLLATE ascii_general_ci',
}

/** Modes that a program may carry and that the other family, or a later version, refuses to be set. */
const mysqlModes =
  /^(?:NO_AUTO_CREATE_USER|NO_(?:KEY|TABLE|FIELD)_OPTIONS|MYSQL323|MYSQL40|POSTGRESQL|MSSQL|DB2|MAXDB|EMPTY_STRING_IS_NULL|SIMULTANEOUS_ASSIGNMENT|TIME_ROUND_FRACTIONAL)$/
const mariadbModes = /^TIME_TRUNCATE_FRACTIONAL$/

/**
 * Says an object as the target's version does. With `convert` what the target lacks becomes the nearest that it has, and
 * that is a warning; without, it blocks.
 */
export function adapt(object: SchemaObject, ability: Ability, convert: boolean): Adapted {
  const findings: Finding[] = []
  const say: Said = (severity, code, said) =>
    void findings.push({ severity, code, said: `${object.id}: ${said}` })
  const { flavor } = ability
  if (object.kind === 'sequence' && !has(flavor, { mariadb: 100_300 })) {
    say('blocks', 'sequence', 'the target does not know sequences')
  }
  if (object.id.startsWith('package') && !has(flavor, { mariadb: 100_300 })) {
    say('blocks', 'package', 'the target does not know packages')
  }
  const statements = object.statements.map((statement) => {
    if (!readStatement(statement).equals(Buffer.from(statement))) return statement
    const sql = adaptCollations(statement, ability, convert, say)
    if (object.kind === 'table') return adaptTable(sql, ability, convert, say)
    if (object.kind === 'index') return adaptKeys(sql, flavor, say)
    if (object.kind === 'foreign-key') return adaptForeignKeys(sql, flavor)
    return adaptModes(sql, flavor, say)
  })
  return { object: { ...object, statements }, findings }
}

function adaptCollations(sql: string, ability: Ability, convert: boolean, say: Said): string {
  const { sql: mapped, lacking } = mapCollations(sql, ability.collations)
  for (const name of new Set(lacking.map((one) => one.name))) {
    const instead = lacking.find((one) => one.name === name)?.instead
    if (instead === undefined) {
      say(
        'blocks',
        'collation-unknown',
        `the target has neither the collation ${name} nor one like it`,
      )
    } else if (convert) {
      say(
        'warns',
        'collation-converted',
        `the collation ${name} becomes ${instead}: order and equality may differ for rare characters`,
      )
    } else {
      say(
        'blocks',
        'collation-unknown',
        `the target does not know the collation ${name}; the nearest that it has is ${instead}`,
      )
    }
  }
  return convert ? mapped : sql
}

function adaptTable(sql: string, ability: Ability, convert: boolean, say: Said): string {
  const parts = takeApart(sql)
  if (!parts) return sql
  const items = parts.items.map((item) => adaptItem(item, ability.flavor, convert, say))
  const tail = adaptOptions(parts.tail, ability, convert, say)
  return putTogether({ ...parts, items, tail })
}

function sayFeatures(text: string, flavor: Flavor, say: Said): void {
  const masked = maskStrings(text)
  for (const { code, finds, since, severity, said } of features) {
    if (finds.test(masked) && !has(flavor, since)) say(severity, code, `${said} (${shorten(text)})`)
  }
}

function shorten(text: string): string {
  return text.replaceAll(/\s+/g, ' ').trim().slice(0, 80)
}

function adaptItem(item: string, flavor: Flavor, convert: boolean, say: Said): string {
  const typed = adaptType(item, flavor, convert, say)
  sayFeatures(typed, flavor, say)
  let own = adaptKey(typed, flavor)
  if (flavor.family === 'mariadb') {
    own = own.replace(/\/\*!80023 INVISIBLE \*\//, 'INVISIBLE')
    // MariaDB takes no NOT NULL of what it computes.
    if (/ GENERATED ALWAYS AS /.test(own)) own = own.replace(/ (STORED|VIRTUAL) NOT NULL/, ' $1')
    if (/^`(?:[^`]|``)*` json\b/.test(own)) {
      say('notes', 'json-as-text', 'json is kept as text there, with a check that it is valid')
    }
  } else {
    // Names of checks are a database's there; these were given by the server.
    own = own.replace(/^CONSTRAINT `CONSTRAINT_\d+` CHECK/, 'CHECK')
    own = own.replace(/ DEFAULT ((?!current_timestamp\b)[a-z_]\w*\([^()]*\))/i, ' DEFAULT ($1)')
    own = own.replace(
      /^(`(?:[^`]|``)*` (?:tiny|medium|long)?(?:blob|text)\b.*? DEFAULT )('(?:[^'\\]|\\.|'')*')/s,
      '$1($2)',
    )
  }
  return own
}

function adaptType(item: string, flavor: Flavor, convert: boolean, say: Said): string {
  const match = /^(`(?:[^`]|``)*`) (uuid|inet4|inet6)\b/.exec(item)
  const [, name = '', type = ''] = match ?? []
  const instead = textFor[type]
  const since: Since = { mariadb: type === 'uuid' ? 100_700 : type === 'inet4' ? 101_000 : 100_500 }
  if (!instead || has(flavor, since)) return item
  if (convert) say('warns', 'type-converted', `${name} ${type} becomes ${instead}`)
  else
    say(
      'blocks',
      'type-unknown',
      `the target does not know the type ${type} of ${name}; text that holds it is ${instead}`,
    )
  return convert ? `${name} ${instead}${item.slice(match?.[0].length)}` : item
}

/** Keys that the optimiser passes over are called otherwise in the other family. */
function adaptKey(item: string, flavor: Flavor): string {
  if (flavor.family === 'mariadb') return item.replace(/\/\*!80000 INVISIBLE \*\/$/, 'IGNORED')
  return item.replace(/(\bKEY .*\)) IGNORED$/s, '$1 /*!80000 INVISIBLE */')
}

function adaptKeys(sql: string, flavor: Flavor, say: Said): string {
  return splitTop(sql)
    .map((clause) => {
      sayFeatures(clause, flavor, say)
      return adaptKey(clause.trim(), flavor)
    })
    .join(', ')
}

const mariadbOptions =
  / `?(?:PAGE_CHECKSUM|TRANSACTIONAL|PAGE_COMPRESSED|PAGE_COMPRESSION_LEVEL|ENCRYPTED|ENCRYPTION_KEY_ID|IETF_QUOTES|SEQUENCE)`?=(?:'[^']*'|\S+)/g
const mysqlOptions = / (?:ENCRYPTION|COMPRESSION|SECONDARY_ENGINE|AUTOEXTEND_SIZE)=(?:'[^']*'|\S+)/g
const folders = / (?:DATA|INDEX) DIRECTORY='(?:[^'\\]|\\.|'')*'/g

function adaptOptions(tail: string, ability: Ability, convert: boolean, say: Said): string {
  sayFeatures(tail, ability.flavor, say)
  let own = tail
  const foreign = ability.flavor.family === 'mysql' ? mariadbOptions : mysqlOptions
  for (const [option] of maskStrings(own).matchAll(foreign)) {
    const harmless = /PAGE_CHECKSUM|TRANSACTIONAL/.test(option)
    if (!harmless) say('warns', 'option-lost', `the target does not know the option${option}`)
  }
  own = own.replaceAll(foreign, '')
  if (own.search(folders) >= 0) {
    say(
      'warns',
      'folder-lost',
      'the table is kept with the others there, not in a folder of its own',
    )
    own = own.replaceAll(folders, '')
  }
  const engine = /\bENGINE=(\w+)/.exec(own)?.[1]
  if (engine === undefined || ability.engines.has(engine.toUpperCase())) return own
  if (!convert) {
    say(
      'blocks',
      'engine-unknown',
      `the target does not have the engine ${engine}; InnoDB would hold it`,
    )
    return own
  }
  say('warns', 'engine-converted', `engine ${engine} becomes InnoDB`)
  return own.replace(/\bENGINE=\w+/, 'ENGINE=InnoDB').replace(/ ROW_FORMAT=(?:PAGE|FIXED)/, '')
}

function adaptModes(sql: string, flavor: Flavor, say: Said): string {
  const match = /^SET SESSION sql_mode = '([A-Z0-9_,]*)'$/.exec(sql)
  if (!match) return sql
  const modes = (match[1] ?? '').split(',')
  const refused =
    flavor.family === 'mariadb' ? mariadbModes : flavor.number >= 80_000 ? mysqlModes : /^$/
  if (modes.includes('ORACLE') && flavor.family === 'mysql') {
    say(
      'blocks',
      'sql-mode',
      'the target does not know the sql_mode ORACLE, in which it was written',
    )
  }
  return `SET SESSION sql_mode = '${modes.filter((mode) => !refused.test(mode)).join(',')}'`
}
