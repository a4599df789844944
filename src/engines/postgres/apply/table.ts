import { Fault } from '#base/faults'
import type { ApplyTable } from '#change/apply'
import { cellAbsent, type Relation, type RowRun } from '#change/batch'
import type { ObjectName } from '#change/schema'
import { quotePath } from '../rows-sql.ts'
import type { TargetColumn, TargetForm, TargetKey, TargetKeyColumn } from './catalog.ts'
import { hashKeys, type HashedKey, nameHash } from './key-hash.kernel.ts'
import { fits } from './types.ts'

/** A column that is written: where its cells are in an image, and where they go. */
export type WrittenColumn = {
  /** In the relation. */
  readonly index: number
  readonly target: TargetColumn
}

/** A column of the key that rows are found by. */
export type KeyColumn = WrittenColumn & Omit<TargetKeyColumn, 'column'>

/** How rows of a relation get into a table of the target. */
export class PreparedTable implements ApplyTable {
  readonly relation: Relation
  readonly form: TargetForm
  readonly shown: string
  /** All that can be written, in the relation's order. */
  readonly columns: readonly WrittenColumn[]
  /** What a row is found by: one row at most has it. Undefined where only all of its values together tell. */
  readonly key: readonly KeyColumn[] | undefined
  /** Whether the texts of two keys tell that they are two: else changes are written one by one. */
  readonly comparable: boolean
  readonly #hashed: readonly HashedKey[]
  readonly #whole: number

  constructor(relation: Relation, form: TargetForm) {
    this.relation = relation
    this.form = form
    this.shown = quotePath(form.name)
    this.columns = writtenColumns(relation, form)
    this.key = keyOf(relation, form)
    this.comparable = this.key?.every((one) => one.sameness !== 'unknown') === true
    this.#whole = nameHash(this.shown)
    this.#hashed = form.keys.map((key) => this.#toHashed(key))
  }

  get target(): ObjectName {
    return this.form.name
  }

  keys(run: RowRun): Uint32Array {
    if (this.key === undefined) return Uint32Array.of(this.#whole)
    return hashKeys(run, this.#hashed)
  }

  // Of a second key old images need not have the values: the order of two changes that meet in it only there is told by the
  // server, which refuses the later one until the earlier one is committed.
  #toHashed(key: TargetKey): HashedKey {
    const seed = nameHash(`${this.shown} ${key.name}`)
    const parts = key.columns?.map((one) => ({
      index: this.relation.columns.findIndex((column) => column.name === one.column.name),
      sameness: one.sameness,
    }))
    const known = parts?.every((one) => one.sameness !== 'unknown' && one.index >= 0)
    if (!known) return { seed, columns: undefined, nullsConflict: true }
    return { seed, columns: parts, nullsConflict: key.nullsConflict }
  }
}

/** The cells of an image that it does not have, as a text that is the same for all rows that lack the same ones. */
export function absentOf(run: RowRun, image: number): string {
  const { cells } = run
  const count = run.relation.columns.length
  let absent = ''
  for (let index = 0; index < count; index += 1) {
    if (cells[image + index * 2] === cellAbsent) absent += `${index},`
  }
  return absent
}

function writtenColumns(relation: Relation, form: TargetForm): readonly WrittenColumn[] {
  const path = quotePath(form.name)
  const doing = `apply changes to ${path}`
  const byName = new Map(form.columns.map((column) => [column.name, column]))
  const written: WrittenColumn[] = []
  for (const [index, column] of relation.columns.entries()) {
    const target = byName.get(column.name)
    byName.delete(column.name)
    if (!target) {
      throw new Fault('different', `${doing}: the target has no column ${column.name}`, {
        hint: `Run there: ALTER TABLE ${path} ADD COLUMN "${column.name}" ${column.type}; then go on with --resume.`,
      })
    }
    if (target.generated) continue
    if (!fits(column.type, target.type) && !fits(column.type, target.baseType)) {
      throw new Fault(
        'different',
        `${doing}: column ${column.name} is ${column.type} on the source and ${target.type} there, which cannot hold all that it may be`,
        {
          hint: `Run there: ALTER TABLE ${path} ALTER COLUMN "${column.name}" TYPE ${column.type}; then go on with --resume.`,
        },
      )
    }
    written.push({ index, target })
  }
  for (const left of byName.values()) {
    if (!left.notNull || left.hasDefault || left.generated || left.identity) continue
    throw new Fault(
      'different',
      `${doing}: its column ${left.name} wants a value, and the source has no such column`,
      {
        hint: `Run there: ALTER TABLE ${path} ALTER COLUMN "${left.name}" DROP NOT NULL; or give it a default; then go on with --resume.`,
      },
    )
  }
  return written
}

/** The key to find rows by: one whose columns every old image has. */
function keyOf(relation: Relation, form: TargetForm): readonly KeyColumn[] | undefined {
  const places = new Map(
    relation.columns.flatMap((column, index) =>
      relation.before === 'full' || column.identifies ? [[column.name, index] as const] : [],
    ),
  )
  for (const key of form.keys) {
    if (!key.identifies || relation.before === 'none') continue
    const parts = key.columns?.flatMap(({ column, ...rest }) => {
      const index = places.get(column.name)
      return index === undefined ? [] : [{ index, target: column, ...rest }]
    })
    if (parts && parts.length === key.columns?.length) return parts
  }
  return undefined
}
