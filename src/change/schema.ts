import type { Progress } from '#base/progress'
import type { Finding } from './finding.ts'

/** The path of an object: `['shop', 'orders']` on the MySQL family, `['public', 'orders']` in PostgreSQL's database of the URL. */
export type ObjectName = readonly string[]

export type ObjectKind =
  | 'database'
  | 'schema'
  | 'extension'
  | 'collation'
  | 'type'
  | 'function'
  | 'procedure'
  | 'sequence'
  | 'table'
  | 'index'
  | 'constraint'
  | 'foreign-key'
  | 'statistics'
  | 'view'
  | 'materialized-view'
  | 'rule'
  | 'policy'
  | 'trigger'
  | 'event'
  | 'publication'
  | 'comment'
  | 'role'
  | 'grant'
  | 'other'

/**
 * When an object is made. `rows`: before any row. `table`: as soon as all rows of its own table are there (indexes, keys).
 * `end`: when all rows of all tables are there (foreign keys, views, triggers, events, values of sequences).
 */
export type Stage = 'rows' | 'table' | 'end'

/** One object, as statements in the engine's own language. */
export type SchemaObject = {
  /** `table shop.orders`, `index orders_at on shop.orders`: unique in a schema, the same each time that it is read. */
  readonly id: string
  readonly kind: ObjectKind
  /** The source's. */
  readonly name: ObjectName
  /** The target's, where an engine has to look for it there. */
  readonly target?: ObjectName | undefined
  /** The table that it belongs to, by the source's name. */
  readonly table?: ObjectName | undefined
  readonly stage: Stage
  /** Run in this order in one session; with the target's names already, where names are mapped. */
  readonly statements: readonly string[]
  /** Ids of objects of the same stage that must be there before. */
  readonly needs: readonly string[]
}

/** The neutral form of a column: what another engine needs to make one like it. */
export type ColumnShape = {
  readonly name: string
  /** The source's own type, in full: `bigint(20) unsigned`, `numeric(12,2)`. */
  readonly type: string
  readonly nullable: boolean
  /** Computed by the server from other columns, and never written. */
  readonly generated: boolean
  /** As an expression in the source's language. */
  readonly defaultSql?: string | undefined
  readonly charset?: string | undefined
  readonly collation?: string | undefined
}

/** A primary or unique key. */
export type KeyShape = {
  readonly name: string
  readonly primary: boolean
  readonly columns: readonly string[]
  /** No column of it can be NULL, and it covers all rows whole: rows can be found by it. */
  readonly identifies: boolean
}

/** A table whose rows are carried. */
export type TableShape = {
  readonly name: ObjectName
  /** Its name on the target. */
  readonly target: ObjectName
  readonly columns: readonly ColumnShape[]
  /** The primary key first. */
  readonly keys: readonly KeyShape[]
  /** By the source's own statistics: for progress and order, never for correctness. */
  readonly rowsEstimate: number
  readonly sizeBytes: number
}

/** What is carried, and under which names. */
export type Selection = {
  accepts(name: ObjectName): boolean
  /** The name on the target. */
  map(name: ObjectName): ObjectName
  /** Users, roles and grants too. */
  readonly accounts: boolean
}

/** All objects that a selection takes in. */
export type Schema = {
  readonly engine: string
  readonly flavor: string
  readonly version: string
  readonly objects: readonly SchemaObject[]
  readonly tables: readonly TableShape[]
  /** What was seen and cannot be read or carried at all. */
  readonly findings: readonly Finding[]
}

/** Reads the objects of a source. */
export interface SchemaSource {
  /** All that the selection accepts, from the catalog. Makes no lock that others wait for longer than a moment. */
  readSchema(selection: Selection, options: { readonly signal: AbortSignal }): Promise<Schema>
}

/** What a link does, in this order. */
export type Phase = 'schema' | 'copy' | 'changes'

export type CheckOptions = {
  /**
   * Without `schema` the objects are not made: a table that is not there or has another form blocks. Without `copy` tables
   * that are there just as they are wanted may have rows.
   */
  readonly phases: readonly Phase[]
  /**
   * What the target lacks becomes the nearest that it has (a collation, an engine, a type), which is a warning then;
   * without, such a thing blocks.
   */
  readonly convert?: boolean | undefined
  readonly signal: AbortSignal
}

export type MakeOptions = {
  /** As it was checked. */
  readonly convert?: boolean | undefined
  readonly signal: AbortSignal
  readonly progress: Progress
  /** Called when an object is there, also when it was there before. */
  readonly onMade: (object: SchemaObject) => void
}

/** Makes objects on a target. */
export interface SchemaTarget {
  /**
   * What of a schema cannot be made here, or will differ, and what stands in its way (tables that are there already, with
   * rows or of another form): all of it, before anything is written.
   */
  checkSchema(schema: Schema, options: CheckOptions): Promise<Finding[]>
  /**
   * Makes these objects of one stage, in the order of their needs. An object that is there just as it is wanted is left:
   * a link that was killed makes them again. One of the same name that differs is refused with `exists`.
   */
  makeObjects(objects: readonly SchemaObject[], options: MakeOptions): Promise<void>
}
