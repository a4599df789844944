import { createHash } from 'node:crypto'
import { Fault, isFault } from '#base/faults'
import type { Finding } from '#change/finding'
import type {
  CheckOptions,
  MakeOptions,
  Schema,
  SchemaObject,
  SchemaSource,
  SchemaTarget,
  Selection,
} from '#change/schema'
import { type Address, openSession, type Session } from './connection.ts'
import type { ServerFacts } from './facts.ts'
import { madeMarks, makeMarks } from './marks.ts'
import { quoteText } from './rows-sql.ts'
import { checkTarget, isSame } from './schema-check.ts'
import { catalogSettings, readSchema } from './schema-reader.ts'
import { checkTriggers } from './schema-triggers.ts'

const everything: Selection = { accepts: () => true, map: (name) => name, accounts: false }

type Options = { readonly signal: AbortSignal }

/** The objects of one database: read from its catalog, and made. */
export class PostgresSchema implements SchemaSource, SchemaTarget {
  readonly #address: Address
  readonly #facts: ServerFacts

  constructor(address: Address, facts: ServerFacts) {
    this.#address = address
    this.#facts = facts
  }

  async readSchema(selection: Selection, { signal }: Options): Promise<Schema> {
    await using session = await openSession(this.#address, { signal })
    return await readSchema(session, this.#facts, selection, signal)
  }

  async checkSchema(schema: Schema, options: CheckOptions): Promise<Finding[]> {
    const { signal } = options
    await using session = await openSession(this.#address, { signal })
    const present = await readSchema(session, this.#facts, everything, signal)
    const findings = await checkTarget(schema, { session, facts: this.#facts, present }, options)
    if (!options.phases.includes('copy')) return findings
    return [...findings, ...(await checkTriggers(session, schema, signal))]
  }

  async makeObjects(objects: readonly SchemaObject[], options: MakeOptions): Promise<void> {
    const { signal, progress, onMade } = options
    await using session = await openSession(this.#address, { signal })
    await session.query(catalogSettings, { signal })
    const made = await readMade(session, signal)
    let present: ReadonlyMap<string, SchemaObject> | undefined
    for (const object of inOrderOfNeeds(objects)) {
      progress.current = object.id
      try {
        if (made.get(object.id) !== digestOf(object)) await make(session, object, signal)
      } catch (error) {
        if (!isFault(error, 'exists', 'engine')) throw error
        present ??= await this.#present(signal)
        checkSame(object, present.get(object.id), error)
      }
      onMade(object)
    }
  }

  async #present(signal: AbortSignal): Promise<ReadonlyMap<string, SchemaObject>> {
    const { objects } = await this.readSchema(everything, { signal })
    return new Map(objects.map((object) => [object.id, object]))
  }
}

// Statements in one message are one transaction: an object is there with all that is said of it and with its mark, or it
// is not.
async function make(session: Session, object: SchemaObject, signal: AbortSignal): Promise<void> {
  const mark = `insert into ${madeMarks} (id, digest) values (${quoteText(object.id)}, ${quoteText(digestOf(object))})
    on conflict (id) do update set digest = excluded.digest`
  await session.query([...object.statements, mark].join('\n;\n'), {
    signal,
    doing: `make ${object.id}`,
  })
}

/** What one server says of an object another says otherwise: what we made ourselves is known by what we said. */
async function readMade(
  session: Session,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, string>> {
  await makeMarks(session, signal)
  const rows = await session.query(`select id, digest from ${madeMarks}`, { signal })
  return new Map(rows.map((row) => [row['id'] ?? '', row['digest'] ?? '']))
}

function digestOf(object: SchemaObject): string {
  return createHash('sha256').update(object.statements.join(';\n')).digest('hex')
}

function checkSame(wanted: SchemaObject, there: SchemaObject | undefined, error: Fault): void {
  if (there && isSame(wanted, there)) return
  if (error.code !== 'exists') throw error
  throw new Fault('exists', `make ${wanted.id}: one that differs is there`, {
    cause: error,
    hint: `Drop it on the target, or leave it out. The target has: ${there?.statements[0] ?? 'something else of that name'}`,
  })
}

/** As they come, each behind those that it needs. */
function inOrderOfNeeds(objects: readonly SchemaObject[]): readonly SchemaObject[] {
  const byId = new Map(objects.map((object) => [object.id, object]))
  const ordered = new Set<SchemaObject>()
  const begun = new Set<SchemaObject>()
  const visit = (object: SchemaObject) => {
    if (begun.has(object)) return
    begun.add(object)
    for (const id of object.needs) {
      const needed = byId.get(id)
      if (needed) visit(needed)
    }
    ordered.add(object)
  }
  for (const object of objects) visit(object)
  return [...ordered]
}
