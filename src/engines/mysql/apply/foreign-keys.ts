import type { Session } from '../protocol/session.ts'
import { quoteNames } from '../sql.ts'

/** A foreign key whose parent's changes reach into the child. */
type Cascade = {
  readonly child: string
  readonly parent: string
  /** In the order of the parent's columns' names, so that both sides name them alike. */
  readonly columns: readonly { readonly own: string; readonly referred: string }[]
}

/** What a table has to do with cascades. */
export type TableCascades = {
  /** Names of its columns that children refer to, by list. */
  readonly referred: readonly (readonly string[])[]
  /** What it refers to. */
  readonly refers: readonly {
    readonly parent: string
    readonly own: readonly string[]
    readonly referred: readonly string[]
  }[]
  /** One name for all tables that cascades join; undefined for a table that none reaches. */
  readonly family: string | undefined
  /** Cascades of cascades: what a change reaches cannot be told by its row. */
  readonly deep: boolean
}

const none: TableCascades = { referred: [], refers: [], family: undefined, deep: false }

/** The cascading foreign keys of a target. */
export class Cascades {
  readonly #all: readonly Cascade[]

  constructor(all: readonly Cascade[]) {
    this.#all = all
  }

  of(database: string, name: string): TableCascades {
    const own = quoteNames(database, name)
    const family = this.#family(own)
    if (family.size === 0) return none
    const inside = this.#all.filter(({ child }) => family.has(child))
    const parents = new Set(inside.map(({ parent }) => parent))
    return {
      referred: inside
        .filter(({ parent }) => parent === own)
        .map(({ columns }) => columns.map(({ referred }) => referred)),
      refers: inside
        .filter(({ child }) => child === own)
        .map(({ parent, columns }) => ({
          parent,
          own: columns.map((column) => column.own),
          referred: columns.map(({ referred }) => referred),
        })),
      family: [...family].toSorted()[0],
      deep: inside.some(({ child }) => parents.has(child)),
    }
  }

  /** All tables that are joined to one, itself included; none when no cascade touches it. */
  #family(start: string): Set<string> {
    const found = new Set<string>()
    const left = this.#all.some(({ child, parent }) => child === start || parent === start)
      ? [start]
      : []
    for (let one = left.pop(); one !== undefined; one = left.pop()) {
      if (found.has(one)) continue
      found.add(one)
      for (const { child, parent } of this.#all) {
        if (child === one) left.push(parent)
        if (parent === one) left.push(child)
      }
    }
    return found
  }
}

export async function readCascades(
  session: Session,
  options: { readonly signal: AbortSignal },
): Promise<Cascades> {
  const rules = `('CASCADE', 'SET NULL')`
  const rows = await session.texts(
    `SELECT k.CONSTRAINT_NAME, k.TABLE_SCHEMA, k.TABLE_NAME, k.COLUMN_NAME, k.REFERENCED_TABLE_SCHEMA,
     k.REFERENCED_TABLE_NAME, k.REFERENCED_COLUMN_NAME
     FROM information_schema.KEY_COLUMN_USAGE k JOIN information_schema.REFERENTIAL_CONSTRAINTS r
     ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME AND r.TABLE_NAME = k.TABLE_NAME
     WHERE k.REFERENCED_TABLE_NAME IS NOT NULL AND (r.DELETE_RULE IN ${rules} OR r.UPDATE_RULE IN ${rules})`,
    options,
  )
  const groups = Map.groupBy(rows, (row) => JSON.stringify(row.slice(0, 3)))
  const all = [...groups.values()].map((parts) => {
    const [, database, name, , parentDatabase, parentName] = parts[0] ?? []
    const columns = parts.map((part) => ({ own: part[3] ?? '', referred: part[6] ?? '' }))
    return {
      child: quoteNames(database ?? '', name ?? ''),
      parent: quoteNames(parentDatabase ?? '', parentName ?? ''),
      columns: columns.toSorted((a, b) => (a.referred < b.referred ? -1 : 1)),
    }
  })
  return new Cascades(all)
}
