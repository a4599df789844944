/**
 * When two values are one to an index, by the text that the log has of them: when the texts are the same; but for blanks at the
 * end; but for the zeros that a number ends with; but for the sign of zero; or nobody can tell by the text.
 */
export type Sameness = 'bytes' | 'blanks' | 'number' | 'zero' | 'unknown'

/** A type of the target as its catalog has it, domains resolved. */
export type CatalogType = {
  readonly schema: string
  readonly name: string
  /** `typtype` of pg_type: `b` for a base type, `e` for an enum. */
  readonly kind: string
  /** Of an array. */
  readonly element?: Omit<CatalogType, 'element'> | undefined
}

// Texts of these say all that their comparison looks at, in the styles that a change stream is told to use.
const exact: ReadonlySet<string> = new Set(
  `bool int2 int4 int8 oid text varchar name char bytea date time timetz timestamp timestamptz uuid inet cidr macaddr macaddr8
   bit varbit money pg_lsn xid xid8 tid cid`.split(/\s+/),
)

/** How values of a type compare. A collation that is not deterministic is the caller's to know of. */
export function samenessOf(type: CatalogType): Sameness {
  if (type.element) return samenessOf(type.element) === 'bytes' ? 'bytes' : 'unknown'
  if (type.kind === 'e') return 'bytes'
  if (type.schema !== 'pg_catalog') return 'unknown'
  if (type.name === 'bpchar') return 'blanks'
  if (type.name === 'numeric') return 'number'
  if (type.name === 'float4' || type.name === 'float8') return 'zero'
  return exact.has(type.name) ? 'bytes' : 'unknown'
}

const integers = ['smallint', 'integer', 'bigint']
const texts = ['text', 'character varying', 'character', 'citext']
/** What a value that is too long for it refuses, instead of losing something. */
const refusing = ['character varying', 'character', 'bit', 'bit varying']

type Written = {
  readonly base: string
  readonly first: number | undefined
  readonly second: number | undefined
  /** A domain's values, of which the log names the type that they are of, by its inner name and without its modifier. */
  readonly isOfDomain: boolean
}

/** Types whose names in the catalog are not those of SQL. */
const innerNames: Readonly<Record<string, string>> = {
  int2: 'smallint',
  int4: 'integer',
  int8: 'bigint',
  float4: 'real',
  float8: 'double precision',
  bool: 'boolean',
  varchar: 'character varying',
  bpchar: 'character',
  varbit: 'bit varying',
  time: 'time without time zone',
  timetz: 'time with time zone',
  timestamp: 'timestamp without time zone',
  timestamptz: 'timestamp with time zone',
  char: '"char"',
}

/** Whether each value of one type is a value of another too, both as `format_type` writes them: nothing is rounded or cut off. */
export function fits(source: string, target: string): boolean {
  const from = parse(source)
  const to = parse(target)
  if (from.base !== to.base) {
    const place = integers.indexOf(from.base)
    if (to.base === 'text') return true
    if (place >= 0 && to.base === 'numeric') return to.first === undefined
    if (place >= 0 && integers.includes(to.base)) return place < integers.indexOf(to.base)
    if (from.base === 'json' && to.base === 'jsonb') return true
    return texts.includes(from.base) && texts.includes(to.base)
  }
  if (to.first === undefined || from.isOfDomain || refusing.includes(to.base)) return true
  if (from.first === undefined) return false
  // What a numeric has too many of before its point is refused; behind it is rounded.
  if (to.base === 'numeric') return (to.second ?? 0) >= (from.second ?? 0)
  return to.first >= from.first
}

// Types of other schemas count by their last name, since schemas may have other names on the target, and without their own
// modifiers, which the log does not tell in words.
function parse(type: string): Written {
  const none = { first: undefined, second: undefined }
  const inner = /^pg_catalog\.(.*)$/.exec(type)?.[1]
  if (inner !== undefined) {
    const name = inner.replace(/^_|"/g, '')
    const base = `${innerNames[name] ?? name}${inner.startsWith('_') ? '[]' : ''}`
    return { base, ...none, isOfDomain: true }
  }
  const user = /^(?:"(?:[^"]|"")*"|[a-z_][a-z0-9_$]*)\.(.*)$/.exec(type)
  if (user) return { base: userType(user[1] ?? ''), ...none, isOfDomain: false }
  const [, numbers] = /\((-?\d+(?:,-?\d+)?)\)/.exec(type) ?? []
  const base = type.replace(/\(.*?\)/, '').replace(/^interval .*$/, 'interval')
  const [first, second] = numbers?.split(',').map(Number) ?? []
  const plain = base.replace(/^bpchar/, 'character').replace(/^"bit"/, 'bit')
  if (plain.startsWith('interval')) return { base: plain, ...none, isOfDomain: false }
  return { base: plain, first, second, isOfDomain: false }
}

// The log names an array by its own type (`_mood`), the catalog by that of its elements (`mood[]`).
function userType(name: string): string {
  const bare = name.replace(/\(.*?\)/, '').replaceAll('"', '')
  return bare.startsWith('_') ? `${bare.slice(1)}[]` : bare
}
