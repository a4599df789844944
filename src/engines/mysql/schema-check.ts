import type { Finding } from '#change/finding'
import type { CheckOptions, ObjectName, Schema, SchemaObject, TableShape } from '#change/schema'
import { isTransactional } from './catalog.ts'
import { readAllMade } from './copy-marks.ts'
import type { Flavor } from './flavor.ts'
import type { Session } from './protocol/session.ts'
import { type Ability, adapt } from './schema-adapt.ts'
import { readCollations } from './schema-collations.ts'
import { digestOf } from './schema-make.ts'
import { readVariables } from './server.ts'
import { quoteNames, quoteText } from './sql.ts'

/** The rights that making everything takes, as the server lists them. */
const rights = [
  'SELECT',
  'INSERT',
  'UPDATE',
  'DELETE',
  'CREATE',
  'DROP',
  'REFERENCES',
  'INDEX',
  'ALTER',
  'CREATE VIEW',
  'CREATE ROUTINE',
  'TRIGGER',
  'EVENT',
]
const definerRights = ['SUPER', 'SET USER', 'SET_USER_ID', 'SET_ANY_DEFINER']
/** A row needs some room beside its largest value. */
const packetWanted = 1024 * 1024 * 1024

/** What a target can hold. */
export async function readAbility(
  session: Session,
  flavor: Flavor,
  signal: AbortSignal,
): Promise<Ability> {
  const engines = await session.texts(
    `SELECT UPPER(ENGINE) FROM information_schema.ENGINES WHERE SUPPORT IN ('YES', 'DEFAULT')`,
    { signal },
  )
  return {
    flavor,
    collations: await readCollations(session, flavor, signal),
    engines: new Set(engines.map(([name]) => name ?? '')),
  }
}

/** All that keeps a schema from being made here, or changes it. */
export async function checkMysqlSchema(
  session: Session,
  ability: Ability,
  schema: Schema,
  options: CheckOptions,
): Promise<Finding[]> {
  const { signal } = options
  const findings: Finding[] = []
  const convert = options.convert === true
  if (options.phases.includes('schema')) {
    for (const object of schema.objects) findings.push(...adapt(object, ability, convert).findings)
    findings.push(...(await checkRights(session, schema, signal)))
    findings.push(...checkAccounts(schema, ability.flavor))
    if (isOther(schema, ability.flavor)) findings.push(...unjudged(schema))
  }
  findings.push(...(await checkServer(session, schema, signal)))
  findings.push(...(await checkTables(session, ability, schema, options)))
  if (options.phases.includes('copy'))
    findings.push(...(await checkTriggers(session, schema, signal)))
  return findings
}

/** Triggers of tables that are there already would fire for rows that come: the server has no way to silence them. */
async function checkTriggers(
  session: Session,
  schema: Schema,
  signal: AbortSignal,
): Promise<Finding[]> {
  const wanted = new Set(schema.tables.map((table) => table.target.join('\n').toLowerCase()))
  const triggers = await session.texts(
    `SELECT EVENT_OBJECT_SCHEMA, EVENT_OBJECT_TABLE, TRIGGER_NAME FROM information_schema.TRIGGERS
     WHERE EVENT_MANIPULATION = 'INSERT' ORDER BY 1, 2, 3`,
    { signal },
  )
  return triggers.flatMap(([database = '', table = '', name = '']): Finding[] => {
    if (!wanted.has(`${database}\n${table}`.toLowerCase())) return []
    return [
      {
        severity: 'blocks',
        code: 'target-trigger',
        said: `the trigger ${name} of ${database}.${table} on the target would change the rows that come`,
        mend: `DROP TRIGGER ${quoteNames(database ?? '', name ?? '')}; -- and make it again after the copy`,
      },
    ]
  })
}

/** Passwords and rights of one family mean nothing to the other. */
function checkAccounts(schema: Schema, flavor: Flavor): Finding[] {
  const accounts = schema.objects.filter(({ kind }) => kind === 'role' || kind === 'grant')
  if (schema.flavor === flavor.family || accounts.length === 0) return []
  return [
    {
      severity: 'blocks',
      code: 'accounts-other-family',
      said: `accounts of ${schema.flavor} cannot be made on ${flavor.family}: leave them out and make them by hand`,
    },
  ]
}

function isOther(schema: Schema, flavor: Flavor): boolean {
  const major = (version: string) => /^\d+(?:\.\d+)?/.exec(version)?.[0]
  return schema.flavor !== flavor.family || major(schema.version) !== major(flavor.version)
}

/** What only the server itself can judge, and does when they are made. */
function unjudged(schema: Schema): Finding[] {
  const programs = schema.objects.filter(({ kind }) =>
    ['view', 'procedure', 'function', 'trigger', 'event'].includes(kind),
  )
  if (programs.length === 0) return []
  return [
    {
      severity: 'notes',
      code: 'bodies-unread',
      said: `the target is of another version: whether it takes the bodies of ${programs.length} views, routines, triggers and events shows when they are made, after the rows`,
    },
  ]
}

async function checkRights(
  session: Session,
  schema: Schema,
  signal: AbortSignal,
): Promise<Finding[]> {
  const grants = (await session.texts('SHOW GRANTS', { signal })).map(([grant]) => grant ?? '')
  const all = grants.some((grant) => /^GRANT ALL PRIVILEGES ON \*\.\* /i.test(grant))
  const listed = grants.flatMap(
    (grant) => /^GRANT (.*?) ON \*\.\* /i.exec(grant)?.[1]?.toUpperCase().split(/, ?/) ?? [],
  )
  if (all) return []
  const roles = grants.some((grant) => !/ ON /.test(grant))
  const everywhere = new Set(listed)
  const findings: Finding[] = []
  const databases = new Set(schema.tables.map((table) => table.target[0] ?? ''))
  const covered = (database: string) =>
    grants.some(
      (grant) =>
        new RegExp(
          `^GRANT ALL PRIVILEGES ON \`${RegExp.escape(database.replaceAll(/[_%]/g, '\\$&'))}\`\\.\\*`,
        ).test(grant) || grant.startsWith(`GRANT ALL PRIVILEGES ON \`${database}\`.*`),
    )
  const missing = rights.filter((right) => !everywhere.has(right))
  const bare = [...databases, 'redoubt'].filter((database) => !covered(database))
  if (missing.length > 0 && bare.length > 0) {
    findings.push({
      severity: roles ? 'warns' : 'blocks',
      code: 'no-privilege',
      said: `this user may not ${missing.join(', ')} in ${bare.join(', ')} of the target`,
      mend: `GRANT ${missing.join(', ')} ON *.* TO CURRENT_USER`,
    })
  }
  const hasDefiners = schema.objects.some(({ kind }) =>
    ['view', 'procedure', 'function', 'trigger', 'event'].includes(kind),
  )
  if (
    hasDefiners &&
    !definerRights.some((right) => everywhere.has(right)) &&
    !/SET_ANY_DEFINER|SET_USER_ID/.test(grants.join())
  ) {
    findings.push({
      severity: roles ? 'warns' : 'blocks',
      code: 'no-definer-right',
      said: 'this user may not make views and programs in the name of their definers',
      mend: `GRANT ${schema.flavor === 'mariadb' ? 'SET USER' : 'SET_ANY_DEFINER, SET_USER_ID'} ON *.* TO CURRENT_USER`,
    })
  }
  return findings
}

async function checkServer(
  session: Session,
  schema: Schema,
  signal: AbortSignal,
): Promise<Finding[]> {
  const names = [
    'read_only',
    'super_read_only',
    'lower_case_table_names',
    'max_allowed_packet',
    'local_infile',
  ]
  const is = await readVariables(session, names, signal)
  const findings: Finding[] = []
  if (is.get('super_read_only') === 'ON' || (is.get('read_only') ?? 'OFF') !== 'OFF') {
    findings.push({
      severity: 'blocks',
      code: 'target-read-only',
      said: 'the target is read-only',
      mend: `SET GLOBAL ${is.get('super_read_only') === 'ON' ? 'super_read_only = OFF, GLOBAL ' : ''}read_only = OFF`,
    })
  }
  if (is.get('lower_case_table_names') !== '0') findings.push(...checkCase(schema))
  const packet = Number(is.get('max_allowed_packet'))
  const large = schema.tables.filter((table) =>
    table.columns.some((column) =>
      /^(?:long(?:blob|text)|json|mediumblob|mediumtext)/i.test(column.type),
    ),
  )
  const current = await session.one('SELECT @@global.max_allowed_packet', { signal })
  if (large.length > 0 && packet < packetWanted && current) {
    findings.push({
      severity: 'notes',
      code: 'small-packets',
      said: `the target takes no value over ${packet} bytes (max_allowed_packet); it is raised for the copy where this user may`,
      mend: `SET GLOBAL max_allowed_packet = ${packetWanted}`,
    })
  }
  if (is.get('local_infile') === 'OFF') {
    findings.push({
      severity: 'notes',
      code: 'local-infile-off',
      said: 'the target has local_infile off: it is switched on for the copy where this user may, else rows go in by INSERT, which is slower',
      mend: 'SET GLOBAL local_infile = ON',
    })
  }
  return findings
}

/** The target folds names to small letters. */
function checkCase(schema: Schema): Finding[] {
  const shown = (names: readonly ObjectName[]) => names.map((name) => name.join('.')).join(', ')
  const groups = Map.groupBy(schema.tables, (table) => table.target.join('.').toLowerCase())
  const same = [...groups.values()].filter((group) => group.length > 1)
  const folded = schema.tables.filter((table) => /\p{Lu}/u.test(table.target.join('.')))
  return [
    ...same.map((group) => ({
      severity: 'blocks' as const,
      code: 'names-collide',
      said: `the target tells names apart by more than their case only: ${shown(group.map((one) => one.target))} would be one table`,
    })),
    ...(folded.length > 0
      ? [
          {
            severity: 'warns' as const,
            code: 'names-folded',
            said: `the target writes names in small letters: ${shown(folded.slice(0, 5).map((one) => one.target))}${folded.length > 5 ? ` and ${folded.length - 5} more` : ''}`,
          },
        ]
      : []),
  ]
}

async function checkTables(
  session: Session,
  ability: Ability,
  schema: Schema,
  options: CheckOptions,
): Promise<Finding[]> {
  const made = await readAllMade(session, options)
  const byName = new Map(
    schema.objects
      .filter(({ kind }) => kind === 'table')
      .map((object) => [object.name.join('\n'), object]),
  )
  const findings: Finding[] = []
  for (const table of schema.tables) {
    const wanted = byName.get(table.name.join('\n'))
    const finding = await checkTable(session, table, options)
    const own = wanted && adapt(wanted, ability, options.convert === true).object
    if (finding && !(own && isOurs(own, made))) findings.push(finding)
  }
  return findings
}

function isOurs(object: SchemaObject, made: ReadonlyMap<string, string>): boolean {
  return made.get(object.id) === digestOf(object)
}

async function checkTable(
  session: Session,
  table: TableShape,
  options: CheckOptions,
): Promise<Finding | undefined> {
  const { signal, phases } = options
  const [database = '', name = ''] = table.target
  const shown = table.target.join('.')
  const rows = await session.texts(
    `SELECT COLUMN_NAME, CHARACTER_SET_NAME FROM information_schema.COLUMNS
     WHERE TABLE_SCHEMA = ${quoteText(database)} AND TABLE_NAME = ${quoteText(name)} ORDER BY ORDINAL_POSITION`,
    { signal },
  )
  if (rows.length === 0) {
    if (phases.includes('schema')) return undefined
    return { severity: 'blocks', code: 'no-table', said: `the target has no table ${shown}` }
  }
  const there = new Map(
    rows.map(([column, set]) => [column?.toLowerCase(), set?.replace('utf8mb3', 'utf8')]),
  )
  const differs = table.columns.find(
    (column) =>
      !column.generated &&
      !/^row_(?:start|end)$/.test(column.name) &&
      (!there.has(column.name.toLowerCase()) ||
        (there.get(column.name.toLowerCase()) ?? undefined) !==
          column.charset?.replace('utf8mb3', 'utf8')),
  )
  if (differs) {
    return {
      severity: 'blocks',
      code: 'table-differs',
      said: `table ${shown} is on the target already, without a column ${differs.name} of the same character set`,
      mend: `DROP TABLE ${quoteNames(database, name)}`,
    }
  }
  const engine = await session.one(
    `SELECT ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = ${quoteText(database)} AND TABLE_NAME = ${quoteText(name)}`,
    { signal },
  )
  if (
    !isTransactional(engine?.[0] ?? '') &&
    phases.includes('copy') &&
    !phases.includes('schema')
  ) {
    return {
      severity: 'warns',
      code: 'target-engine',
      said: `table ${shown} of the target is kept by ${engine?.[0]}, without transactions: if it comes in several chunks it is refused`,
      mend: `ALTER TABLE ${quoteNames(database, name)} ENGINE = InnoDB`,
    }
  }
  if (!phases.includes('copy')) return undefined
  const row = await session.one(`SELECT 1 FROM ${quoteNames(database, name)} LIMIT 1`, { signal })
  if (row) {
    return {
      severity: 'blocks',
      code: 'target-has-rows',
      said: `table ${shown} on the target has rows already`,
      mend: `TRUNCATE TABLE ${quoteNames(database, name)}`,
    }
  }
  if (!phases.includes('schema')) return undefined
  return {
    severity: 'blocks',
    code: 'table-exists',
    said: `table ${shown} is on the target already: without --phase schema its form is taken as it is`,
    mend: `DROP TABLE ${quoteNames(database, name)}`,
  }
}
