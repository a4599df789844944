import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createProgress } from '#base/progress'
import { isFault } from '#base/faults'
import {
  beginCopy,
  copyAll,
  everything,
  makeStage,
  migrateAll,
  openCopy,
  openEndpoint,
} from '../../../test/support/postgres-copy.ts'
import { everyObject } from '../../../test/support/postgres-every-object.ts'
import { type PostgresServer, startPostgres } from '../../../test/support/servers/postgres.ts'
import { service } from '../../../test/support/servers/services.ts'
import { runAsServerUser } from '../../../test/support/servers/process.ts'
import { postgresPassword } from '../../../test/support/servers/postgres.ts'

const signal = AbortSignal.timeout(600_000)

/** What pg_dump 17 says of a database, without what differs from run to run. */
async function dump(server: PostgresServer, database = 'postgres'): Promise<string> {
  const { bin } = await service('postgres17')
  const place = ['-h', '127.0.0.1', '-p', String(server.port), '-U', 'postgres']
  const text = runAsServerUser([`${bin}/pg_dump`, ...place, database], {
    env: { PGPASSWORD: postgresPassword },
  })
  return text
    .split('\n')
    .filter((line) => !/^\\(?:un)?restrict |^-- Dumped /.test(line))
    .join('\n')
}

test('every kind of object comes over: pg_dump says the same of both sides, rows included', async () => {
  await using a = await startPostgres({ version: '17' })
  await using b = await startPostgres({ version: '17' })
  await a.query(everyObject)
  const [source, target] = [await openEndpoint(a.url), await openEndpoint(b.url)]
  const selection = { ...everything, accounts: true }
  const schema = await source.schema.readSchema(selection, { signal })
  assert.deepEqual(schema.findings, [])
  const phases = ['schema', 'copy'] as const
  assert.deepEqual(await target.schema.checkSchema(schema, { phases, signal }), [])
  await migrateAll(source, target, selection)
  assert.equal(await dump(b), await dump(a))
  const roles = `select rolname, rolcanlogin, rolpassword, (select array_agg(s order by s) from pg_db_role_setting d
    cross join unnest(d.setconfig) s where d.setrole = r.oid) as settings,
    (select array_agg(g.rolname order by 1) from pg_auth_members m join pg_roles g on g.oid = m.roleid where m.member = r.oid) as member_of
    from pg_authid r where r.oid >= 16384 order by 1`
  assert.deepEqual(await b.query(roles), await a.query(roles))
  // What is there just as it is wanted is left, and told as made.
  const made: string[] = []
  const again = await source.schema.readSchema(selection, { signal })
  const objects = again.objects.filter((object) => object.stage === 'rows')
  const progress = createProgress('make')
  await target.schema.makeObjects(objects, {
    signal,
    progress,
    onMade: (object) => made.push(object.id),
  })
  assert.equal(made.length, objects.length)
  await using writer = await openCopy(target)
  await writer.finish([], { signal })
  assert.equal(await dump(b), await dump(a))
})

test('a newer server gets what pg_dump and psql would have made there', async () => {
  await using a = await startPostgres({ version: '15' })
  await using b = await startPostgres({ version: '17' })
  await a.query(everyObject)
  const [source, target] = [await openEndpoint(a.url), await openEndpoint(b.url)]
  await migrateAll(source, target, { ...everything, accounts: true })
  await b.query('create database reference template template0')
  const script = `${b.makeFolder('reference')}/script.sql`
  const { writeFileSync } = await import('node:fs')
  writeFileSync(script, await dump(a))
  b.tool('psql', '-q', '-v', 'ON_ERROR_STOP=1', '-d', 'reference', '-f', script)
  assert.equal(await dump(b), await dump(b, 'reference'))
})

test('what an older server lacks is told before anything is written', async () => {
  await using a = await startPostgres({ version: '18' })
  await using b = await startPostgres({ version: '15' })
  await a.query(`
    create table t (id int primary key, twice int generated always as (id * 2) virtual, span int4range);
    create table over_time (id int4range, at daterange, primary key (id, at without overlaps));
    create table loose (id int references t not enforced);
    create collation builtin_c (provider = builtin, locale = 'C.UTF-8')`)
  const [source, target] = [await openEndpoint(a.url), await openEndpoint(b.url)]
  const schema = await source.schema.readSchema(everything, { signal })
  const findings = await target.schema.checkSchema(schema, { phases: ['schema'], signal })
  assert.deepEqual(
    findings.map((finding) => [finding.severity, finding.code, finding.said.split(',')[0]]),
    [
      [
        'blocks',
        'target-too-old',
        'collation public.builtin_c has a collation of the built-in provider',
      ],
      ['blocks', 'target-too-old', 'table public.t has a virtual generated column'],
      [
        'blocks',
        'target-too-old',
        'constraint over_time_pkey on public.over_time has a key or foreign key over time',
      ],
      [
        'blocks',
        'target-too-old',
        'constraint loose_id_fkey on public.loose has a constraint that is not enforced',
      ],
    ],
  )
  const there = await b.query(
    `select relname from pg_class where relnamespace = 'public'::regnamespace`,
  )
  assert.deepEqual(there, [])
})

test('what stands in the way on the target is told, all of it, and refused when it is made nevertheless', async () => {
  await using a = await startPostgres()
  await using b = await startPostgres()
  await a.query(`create role app; create table full_one (id int primary key); create table other (id int, a text); create table same (id int);
    create view v as select 1 as a; create policy p on same to app using (true); create table only_here (id int)`)
  await b.query(`create table full_one (id int primary key); insert into full_one values (1); create table other (id bigint);
    create table same (id int); create view v as select 2 as a`)
  const [source, target] = [await openEndpoint(a.url), await openEndpoint(b.url)]
  const schema = await source.schema.readSchema(everything, { signal })
  const check = async (...phases: ('schema' | 'copy')[]) =>
    (await target.schema.checkSchema(schema, { phases, signal })).map(({ code }) => code)
  const both = await check('schema', 'copy')
  assert.deepEqual(both, [
    'no-role',
    'target-has-rows',
    'table-differs',
    'object-differs',
    'object-differs',
  ])
  assert.deepEqual(await check('copy'), ['target-has-rows', 'no-table', 'table-differs'])
  await assert.rejects(makeStage(target, schema, 'end'), (error) =>
    isFault(error, 'exists', 'engine'),
  )
  const view = schema.objects.filter((object) => object.id === 'view public.v')
  const options = { signal, progress: createProgress('make'), onMade: () => undefined }
  await assert.rejects(
    target.schema.makeObjects(view, options),
    (error) => isFault(error, 'exists') && error.hint?.includes('Drop it') === true,
  )
})

test('a selection takes its tables, what they need, and leaves out with a word what needs others', async () => {
  await using a = await startPostgres()
  await using b = await startPostgres()
  await a.query(everyObject)
  await a.query(`create view shop.mixed as select a from shop.parent, shop.serial`)
  const [source, target] = [await openEndpoint(a.url), await openEndpoint(b.url)]
  const accepts = (name: readonly string[]) =>
    ['parent', 'child', 'line', 'mixed'].includes(name[1] ?? '')
  const schema = await migrateAll(source, target, { ...everything, accepts })
  const made = await b.query<{ name: string }>(
    `select oid::regclass::text as name from pg_class where relnamespace = 'shop'::regnamespace and relkind in ('r', 'v') order by 1`,
  )
  assert.deepEqual(
    made.map((row) => row.name),
    ['shop.child', 'shop.line', 'shop.parent'],
  )
  const said = schema.findings.map((finding) => finding.said)
  assert.ok(
    said.includes('view shop.mixed is left out: it needs table shop.serial, which is not chosen'),
  )
  assert.ok(said.some((one) => one.startsWith('constraint latefk on shop.line is left out')))
  assert.deepEqual(
    await b.query('select * from shop.parent order by 1, 2'),
    await a.query('select * from shop.parent order by 1, 2'),
  )
})

test('values of sequences are those of the second reading', async () => {
  await using a = await startPostgres()
  await using b = await startPostgres()
  await a.query(
    'create table t (id int generated always as identity, s serial); insert into t default values',
  )
  const [source, target] = [await openEndpoint(a.url), await openEndpoint(b.url)]
  const first = await source.schema.readSchema(everything, { signal })
  await makeStage(target, first, 'rows')
  await a.query('insert into t default values')
  {
    await using reader = await beginCopy(source, first)
    await using writer = await openCopy(target)
    await copyAll(reader, writer, first)
  }
  await makeStage(target, await source.schema.readSchema(everything, { signal }), 'end')
  const [row] = await b.query('insert into t default values returning id, s')
  assert.deepEqual(row, { id: 3, s: 3 })
})

test('what PostgreSQL 18 alone has comes over: both sides read alike', async () => {
  await using a = await startPostgres({ version: '18' })
  await using b = await startPostgres({ version: '18' })
  await a.query(everyObject)
  await a.query(`
    create table modern (id int4range, at daterange, a int constraint named not null, b int not null no inherit,
      twice int generated always as (a * 2) virtual, kept int generated always as (a + 1), primary key (id, at without overlaps), constraint loose check (a > 0) not enforced);
    create table refers (id int4range, at daterange, a int references shop.serial not enforced, foreign key (id, period at) references modern (id, period at));
    alter table refers add constraint later not null a not valid;
    create table kid () inherits (modern); create table strict (constraint s not null b, c int) inherits (modern);
    create collation builtin_c (provider = builtin, locale = 'C.UTF-8');
    create publication gen for table modern with (publish_generated_columns = stored);
    insert into modern values ('[1,2)', '[2024-01-01,2025-01-01)', 1, 2)`)
  const [source, target] = [await openEndpoint(a.url), await openEndpoint(b.url)]
  const selection = { ...everything, accounts: true }
  const schema = await source.schema.readSchema(selection, { signal })
  const phases = ['schema', 'copy'] as const
  assert.deepEqual(await target.schema.checkSchema(schema, { phases, signal }), [])
  await migrateAll(source, target, selection)
  const texts = async (of: typeof source) =>
    (await of.schema.readSchema(selection, { signal })).objects.map((one) => [
      one.id,
      one.statements,
    ])
  assert.deepEqual(
    new Map((await texts(target)) as [string, string[]][]),
    new Map((await texts(source)) as [string, string[]][]),
  )
  assert.deepEqual(await b.query('select * from modern'), await a.query('select * from modern'))
  const notNulls = `select conrelid::regclass::text, conname, convalidated, conislocal, coninhcount, connoinherit from pg_constraint
    where contype = 'n' and conrelid >= 16384 order by 1, 2`
  assert.deepEqual(await b.query(notNulls), await a.query(notNulls))
})
