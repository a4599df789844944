import type { Finding } from '#change/finding'
import type { CheckOptions, Schema, SchemaObject, TableShape } from '#change/schema'
import type { Session } from './connection.ts'
import type { ServerFacts } from './facts.ts'
import { probeTarget } from './probe-migrate.ts'
import { encodingOf, isLargeObjects, quotePath } from './rows-sql.ts'

type Target = {
  readonly session: Session
  readonly facts: ServerFacts
  /** What it holds already. */
  readonly present: Schema
}

/** What of a schema a target cannot take, will have otherwise, or has already. */
export async function checkTarget(
  schema: Schema,
  target: Target,
  options: CheckOptions,
): Promise<Finding[]> {
  const { signal, phases } = options
  const makes = phases.includes('schema')
  const use = phases.includes('changes') ? 'sync-to' : 'migrate-to'
  return [
    ...(await probeTarget({ ...target, use, signal })),
    ...(makes ? checkFeatures(schema, target.facts) : []),
    ...(makes ? await checkParts(schema, target.session, signal) : []),
    ...(await checkText(schema, target.session, signal)),
    ...(await checkTables(schema, target, options)),
    ...(makes ? checkOthers(schema, target.present) : []),
  ]
}

/** What came with a version, and how a statement shows it. */
const features: readonly (readonly [major: number, said: string, shows: RegExp])[] = [
  [18, 'a virtual generated column', /generated always as \((?:[^()]|\([^()]*\))*\)(?! stored)/i],
  [18, 'a constraint that is not enforced', / NOT ENFORCED\b/],
  [18, 'a key or foreign key over time', / WITHOUT OVERLAPS\)|, PERIOD /],
  [17, 'a collation of the built-in provider', /^create collation .* \(provider = builtin/i],
  [17, 'the MAINTAIN right', /^grant [^(]*\bMAINTAIN\b/],
  [15, 'a key that takes nulls as equal', / NULLS NOT DISTINCT\b/],
  [15, 'an unlogged sequence', /^create unlogged sequence/i],
  [15, 'a view with the rights of the caller', /^create view .* with \(.*security_invoker/i],
  [
    15,
    'a publication of a schema',
    /^create publication .* for tables in schema|, tables in schema/i,
  ],
  [15, 'a foreign key that sets some columns', / ON DELETE SET (?:NULL|DEFAULT) \(/],
  [14, 'a compression method of a column', / set compression (?:lz4|pglz)$/i],
  [14, 'a range with a named multirange', /, multirange_type_name = /],
  [14, 'a body in standard SQL', /\bBEGIN ATOMIC\b/],
  [14, 'statistics of an expression', /^CREATE STATISTICS .* ON .*\(/],
]

function checkFeatures(schema: Schema, facts: ServerFacts): Finding[] {
  const major = Math.floor(facts.versionNumber / 10_000)
  const from = Number.parseInt(schema.version, 10)
  const later = features.filter(([since]) => since > major && since <= from)
  return schema.objects.flatMap((object) =>
    later
      .filter(([, , shows]) => object.statements.some((sql) => shows.test(sql)))
      .map(([since, said]) => ({
        severity: 'blocks' as const,
        code: 'target-too-old',
        said: `${object.id} has ${said}, which came with PostgreSQL ${since}; the target is ${facts.version}`,
      })),
  )
}

async function checkParts(
  schema: Schema,
  session: Session,
  signal: AbortSignal,
): Promise<Finding[]> {
  const extensions = schema.objects.filter((object) => object.kind === 'extension')
  const missing = await session.query(
    `select x.name from unnest($1::text[]) x(name)
     where not exists (select from pg_available_extensions a where a.name = x.name)`,
    { signal, values: [extensions.map((object) => object.name[0])] },
  )
  const [lz4] = await session.query(
    `select 1 from pg_settings where name = 'default_toast_compression' and 'lz4' = any(enumvals)`,
    { signal },
  )
  const compressed = schema.objects.filter((object) =>
    object.statements.some((sql) => sql.endsWith(' set compression lz4')),
  )
  const made = new Set(
    schema.objects
      .filter((object) => object.kind === 'role')
      .map((object) => object.id.replace(/^role /, '')),
  )
  const policies = schema.objects.filter((object) => object.kind === 'policy')
  const wanted = policies.flatMap((object) => rolesOf(object).map((role) => ({ role, object })))
  const there = new Set(
    (await session.query('select quote_ident(rolname) as name from pg_roles', { signal })).map(
      (row) => row['name'] ?? '',
    ),
  )
  const lost = wanted.filter(({ role }) => !there.has(role) && !made.has(role))
  return [
    ...(lz4 ? [] : compressed).map((object) => ({
      severity: 'blocks' as const,
      code: 'no-lz4',
      said: `${object.id} has columns compressed by lz4, which the target was built without`,
      mend: object.statements
        .filter((sql) => sql.endsWith(' set compression lz4'))
        .map((sql) => `${sql.replace(/lz4$/, 'pglz')}; -- on the source`)
        .join(' '),
    })),
    ...missing.map((row) => ({
      severity: 'blocks' as const,
      code: 'no-extension',
      said: `extension ${row['name']} cannot be had on the target`,
      mend: `-- install the package of ${row['name']} on the target, or leave the extension out`,
    })),
    ...lost.map(({ role, object }) => ({
      severity: 'blocks' as const,
      code: 'no-role',
      said: `${object.id} names role ${role}, which is not on the target`,
      mend: `CREATE ROLE ${role};`,
    })),
  ]
}

function rolesOf(object: SchemaObject): readonly string[] {
  const match = /^create policy .* for \w+ to (.*?)(?: using \(| with check \(|$)/is.exec(
    object.statements[0] ?? '',
  )
  const names = match?.[1]?.split(', ') ?? []
  return names.filter((name) => name !== 'public')
}

async function checkText(
  schema: Schema,
  session: Session,
  signal: AbortSignal,
): Promise<Finding[]> {
  const tables = schema.tables.filter((table) => !isLargeObjects(table.name))
  const [row] = await session.query('select getdatabaseencoding() as encoding', { signal })
  const [from, to] = [tables[0] && encodingOf(tables[0]), row?.['encoding'] ?? '']
  if (from === undefined || from === to) return []
  if (from === 'SQL_ASCII') {
    return [
      {
        severity: 'warns',
        code: 'encoding-unknown',
        said: `the source does not say how its text is encoded (SQL_ASCII); the target takes it as ${to}, and refuses what is not`,
      },
    ]
  }
  return [
    {
      severity: to === 'UTF8' ? 'notes' : 'warns',
      code: 'encoding-differs',
      said: `text is converted from ${from} to ${to}${to === 'UTF8' ? '' : '; what has no form there stops the copy'}`,
    },
  ]
}

async function checkTables(
  schema: Schema,
  { session, present }: Target,
  { phases, signal }: CheckOptions,
): Promise<Finding[]> {
  const there = new Map(present.tables.map((table) => [quotePath(table.name), table]))
  const findings: Finding[] = []
  for (const table of schema.tables) {
    const name = quotePath(table.target)
    const own = there.get(name)
    if (!own) {
      if (!phases.includes('schema') && !isLargeObjects(table.target)) {
        findings.push({
          severity: 'blocks',
          code: 'no-table',
          said: `table ${name} is not on the target, and objects are not made`,
        })
      }
      continue
    }
    const otherwise = differenceOf(table, own)
    if (otherwise !== undefined) {
      findings.push({
        severity: 'blocks',
        code: 'table-differs',
        said: `table ${name} is on the target with another form: ${otherwise}`,
        mend: `ALTER TABLE ${name} RENAME TO ...; -- or DROP TABLE`,
      })
    } else if (phases.includes('copy') && (await hasRows(session, own, signal))) {
      findings.push({
        severity: 'blocks',
        code: 'target-has-rows',
        said: isLargeObjects(own.name)
          ? 'the target has large objects already'
          : `table ${name} of the target has rows`,
        mend: isLargeObjects(own.name)
          ? 'SELECT lo_unlink(oid) FROM pg_largeobject_metadata;'
          : `TRUNCATE ${name};`,
      })
    }
  }
  return findings
}

async function hasRows(session: Session, table: TableShape, signal: AbortSignal): Promise<boolean> {
  if (isLargeObjects(table.name)) return true
  const name = quotePath(table.name)
  const rows = await session.query(`select from only ${name} limit 1`, {
    signal,
    doing: `look into ${name}`,
  })
  return rows.length > 0
}

/** The first difference between two tables that matters to rows; undefined when there is none. */
export function differenceOf(wanted: TableShape, there: TableShape): string | undefined {
  const own = new Map(there.columns.map((column) => [column.name, column]))
  for (const column of wanted.columns) {
    const other = own.get(column.name)
    if (!other) return `it has no column ${column.name}`
    if (other.type !== column.type)
      return `column ${column.name} is ${other.type}, not ${column.type}`
    if (other.generated !== column.generated)
      return `column ${column.name} is generated on one side only`
    own.delete(column.name)
  }
  const [more] = [...own.values()].filter((column) => !column.generated)
  return more && `it has a column ${more.name} that the source has not`
}

// As it will be refused when it is made. Two versions may tell the same thing otherwise: then it stands in the way too.
function checkOthers(schema: Schema, present: Schema): Finding[] {
  const there = new Map(present.objects.map((object) => [object.id, object]))
  return schema.objects.flatMap((object) => {
    const own = there.get(object.id)
    if (!own || isRepeatable(object) || isSame(object, own)) return []
    return [
      {
        severity: 'blocks' as const,
        code: 'object-differs',
        said: `${object.id} is on the target, and differs`,
      },
    ]
  })
}

/** What may be said again: it has no name that could be taken. */
export function isRepeatable(object: SchemaObject): boolean {
  return (
    ['schema', 'extension', 'grant', 'comment', 'role'].includes(object.kind) ||
    /^(?:value|rows|owner|row security) of /.test(object.id)
  )
}

export function isSame(a: SchemaObject, b: SchemaObject): boolean {
  return a.statements.join(';') === b.statements.join(';')
}
