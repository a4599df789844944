import { isFault } from '#base/faults'
import type { Log } from '#base/log'
import type { Progress } from '#base/progress'
import type { ObjectName, SchemaObject, SchemaTarget, Stage, TableShape } from '#change/schema'
import { formatName } from './selection.ts'
import type { LinkStore } from './state.ts'

export type Making = {
  readonly store: LinkStore
  readonly target: SchemaTarget
  readonly convert: boolean
  readonly progress: Progress
  readonly log: Log
  readonly signal: AbortSignal
}

/** Makes what is not made yet of a stage. */
export async function makeStage(stage: Stage, making: Making): Promise<void> {
  await make(making.store.objects(stage), making)
}

/**
 * Kinds that are made only when all changes are there: what would act on them (the rows that it wrote on the source come by
 * themselves), and what holds a state of the data.
 */
const heldKinds: ReadonlySet<SchemaObject['kind']> = new Set([
  'trigger',
  'event',
  'sequence',
  'materialized-view',
])

/**
 * Makes what may be there while changes are applied, of the last stage. Foreign keys that tables of several moments do not
 * fulfil yet wait for the end, too.
 */
export async function makeQuiet(making: Making): Promise<void> {
  const objects = withoutHeld(making.store.objects('end'))
  await make(
    objects.filter(({ kind }) => kind !== 'foreign-key'),
    making,
  )
  for (const key of objects.filter(({ kind }) => kind === 'foreign-key')) {
    try {
      await make([key], making)
    } catch (error) {
      if (!isFault(error, 'engine', 'different')) throw error
      making.log.warn(`${key.id} is made when all changes are there: ${error.message}`)
    }
  }
}

/** Of a later reading what waited for the end of the changes: all else that is new there came with the changes. */
export function leftToMake(
  store: LinkStore,
  objects: readonly SchemaObject[],
): readonly SchemaObject[] {
  const unmade = new Set(store.objects().map(({ id }) => id))
  return objects.filter(
    ({ id, kind, stage }) => unmade.has(id) || (stage === 'end' && heldKinds.has(kind)),
  )
}

function withoutHeld(objects: readonly SchemaObject[]): SchemaObject[] {
  const held = new Set(objects.filter(({ kind }) => heldKinds.has(kind)).map(({ id }) => id))
  for (let size = -1; size !== held.size; ) {
    size = held.size
    for (const { id, needs } of objects) if (needs.some((need) => held.has(need))) held.add(id)
  }
  return objects.filter(({ id }) => !held.has(id))
}

/**
 * Makes the objects of one table that need nothing of another: the others are made when all tables are there
 * (a partition's index that is attached to its parent's).
 */
export async function makeTableObjects(table: ObjectName, making: Making): Promise<void> {
  const { store } = making
  await make(withoutOthers(store.ownObjects(table), store), making)
}

/** The objects whose needs are made already, or among those that stay. */
function withoutOthers(own: readonly SchemaObject[], store: LinkStore): readonly SchemaObject[] {
  const ids = new Set(own.map(({ id }) => id))
  const kept = own.filter(({ needs }) =>
    needs.every((need) => ids.has(need) || !store.isUnmade(need)),
  )
  return kept.length === own.length ? kept : withoutOthers(kept, store)
}

async function make(objects: readonly SchemaObject[], making: Making): Promise<void> {
  if (objects.length === 0) return
  const { store, target, convert, progress, log, signal } = making
  const made: string[] = []
  try {
    const onMade = ({ id }: SchemaObject) => {
      made.push(id)
      log.debug(`made ${id}`)
    }
    await target.makeObjects(objects, { convert, signal, progress, onMade })
  } finally {
    store.made(made)
  }
}

/** What differs of the tables of two readings, in a few words; undefined when rows of one fit the other. */
export function shapesDiffer(
  planned: readonly TableShape[],
  found: readonly TableShape[],
): string | undefined {
  const now = new Map(found.map((table) => [JSON.stringify(table.name), table]))
  for (const table of planned) {
    const key = JSON.stringify(table.name)
    const other = now.get(key)
    if (!other) return `table ${formatName(table.name)} went away`
    if (fingerprint(other) !== fingerprint(table)) return `table ${formatName(table.name)} changed`
    now.delete(key)
  }
  const [added] = now.values()
  return added && `table ${formatName(added.name)} was made`
}

/** What rows depend on: not the estimates. */
function fingerprint({ columns, keys, target }: TableShape): string {
  return JSON.stringify([target, columns, keys])
}
