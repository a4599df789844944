import { createHash } from 'node:crypto'
import { Fault } from '#base/faults'
import type { MakeOptions, SchemaObject } from '#change/schema'
import { noteMade, openNotes, readMade } from './copy-marks.ts'
import { splitTop } from './ddl.ts'
import type { Flavor } from './flavor.ts'
import { openLoader } from './load.ts'
import type { Endpoint } from './protocol/endpoint.ts'
import type { Session } from './protocol/session.ts'
import { adapt, type Ability } from './schema-adapt.ts'
import { readStatement } from './schema-statement.ts'
import { findObject } from './schema-there.ts'
import { loadSettings } from './script.ts'

/** A table that was made for nothing but its form must not get a key of the server's own. */
const withoutOwnKeys = [
  ['sql_generate_invisible_primary_key', 80_030],
  ['sql_require_primary_key', 80_013],
] as const

/** Makes objects of one stage on a target, each after those that it needs. */
export async function makeMysqlObjects(
  target: { readonly endpoint: Endpoint; readonly flavor: Flavor; readonly ability: Ability },
  objects: readonly SchemaObject[],
  options: MakeOptions,
): Promise<void> {
  const { signal, progress } = options
  await using session = await openLoader({ endpoint: target.endpoint, unlogged: false, signal })
  await keepForm(session, target.flavor, signal)
  await openNotes(session, { signal })
  for (const object of inOrder(objects)) {
    progress.current = object.id
    await make(session, adapt(object, target.ability, options.convert === true).object, signal)
    progress.doneItems += 1
    options.onMade(object)
  }
}

/** Where the server would add keys of its own, or refuse a table without, it is asked not to; that takes a right. */
async function keepForm(session: Session, flavor: Flavor, signal: AbortSignal): Promise<void> {
  if (flavor.family === 'mariadb') return
  for (const [name, since] of withoutOwnKeys) {
    if (flavor.number < since) continue
    const row = await session.one(`SELECT @@session.${name}`, { signal })
    if (row?.[0] === '1') await session.query(`SET SESSION ${name} = OFF`, { signal })
  }
}

/** Each behind what it needs; else in the order in which they came. */
export function inOrder(objects: readonly SchemaObject[]): SchemaObject[] {
  const byId = new Map(objects.map((object) => [object.id, object]))
  const done = new Set<string>()
  const out: SchemaObject[] = []
  const visit = (object: SchemaObject, above: ReadonlySet<string>): void => {
    if (done.has(object.id)) return
    // Programs may name each other in a ring: whoever comes first is made first then.
    if (above.has(object.id)) return
    const inner = new Set(above).add(object.id)
    for (const id of object.needs) {
      const needed = byId.get(id)
      if (needed) visit(needed, inner)
    }
    if (done.has(object.id)) return
    done.add(object.id)
    out.push(object)
  }
  for (const object of objects) visit(object, new Set())
  return out
}

/** The same for the same wish, whatever counter a table has reached and whichever of its keys come later. */
export function digestOf(object: SchemaObject): string {
  const text =
    object.kind === 'table'
      ? splitTop((object.statements[0] ?? '').replace(/ AUTO_INCREMENT=\d+/, '')).join(',')
      : object.statements.join(';\n')
  return createHash('sha256').update(text).digest('hex')
}

async function make(session: Session, object: SchemaObject, signal: AbortSignal): Promise<void> {
  const there = await findObject(session, object, signal)
  if (there === 'part') return makeRest(session, object, signal)
  const digest = digestOf(object)
  if (there) {
    if (there === 'same' || (await readMade(session, object.id, { signal })) === digest) return
    throw new Fault('exists', `make ${object.id}: another of that name is on the target`, {
      hint: 'Drop it there, or give this one another name.',
    })
  }
  await noteMade(session, object.id, digest, { signal })
  await run(session, object, object.statements, signal)
}

/** Of several keys some are there: a link was killed between two statements. */
async function makeRest(
  session: Session,
  object: SchemaObject,
  signal: AbortSignal,
): Promise<void> {
  for (const statement of object.statements) {
    const one = { ...object, statements: [statement] }
    if (!(await findObject(session, one, signal))) await run(session, object, [statement], signal)
  }
}

async function run(
  session: Session,
  object: SchemaObject,
  statements: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  for (const statement of statements) {
    await session.query(readStatement(statement), { signal }, `make ${object.id}`)
  }
  const ownSettings = statements.some((statement) => statement.startsWith('SET SESSION '))
  if (ownSettings) for (const statement of loadSettings) await session.query(statement, { signal })
}
