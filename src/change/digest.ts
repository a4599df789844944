import type { Log } from '#base/log'
import type { ObjectName, TableShape } from './schema.ts'

/** A value in the canonical form of its column, `null` for NULL. */
export type Cell = Buffer | null

/** Values of a key's columns, in its order. */
export type Key = readonly Buffer[]

/** How a column can be read so that another server's can be compared with it. */
export type ColumnForms = {
  /**
   * Names of canonical forms (docs/formats/row-digest.md), best first: two columns are compared by the first that both have.
   * A name stands for the same bytes of the same value on whatever server. None: the column cannot be compared.
   */
  readonly forms: readonly string[]
  /**
   * Names the order that the server keeps its values in; undefined where ranges of it cannot be asked for with literals.
   * Equal names need not mean an equal order: `RangeSum.ordered` tells whether borders mean ranges.
   */
  readonly order: string | undefined
}

/** What a side says of a table before it is compared. */
export type Description = {
  /** In the order of `TableShape.columns`. */
  readonly columns: readonly ColumnForms[]
  /** Rows that are no longer valid are among those that are compared: no key of the table names a row. */
  readonly history: boolean
  /** Why rows of it are not repaired; undefined when they may be. */
  readonly unrepairable: string | undefined
}

export type DigestColumn = {
  readonly name: string
  readonly type: string
  readonly charset?: string | undefined
  readonly collation?: string | undefined
  readonly generated: boolean
  readonly nullable: boolean
  readonly form: string
}

/** One side of two tables that are compared; columns of both in the same order, and of the same forms. */
export type DigestTable = {
  readonly name: ObjectName
  readonly columns: readonly DigestColumn[]
  /** Indexes of the columns that name a row on both sides; none: rows are told apart by their digests alone. */
  readonly key: readonly number[]
  /** This side's index on them. */
  readonly index: string | undefined
  readonly history: boolean
}

/** Those that name a row; none where only its digest does. */
export function keyColumns(table: DigestTable): readonly DigestColumn[] {
  return table.key.flatMap((index) => table.columns[index] ?? [])
}

/** Rows whose key is at least `from` and less than `to`, by this side's own order. */
export type KeyRange = { readonly from?: Key | undefined; readonly to?: Key | undefined }

/** What all rows of a range come to, whatever their order. */
export type RangeSum = {
  readonly rows: bigint
  readonly sum: string
  /**
   * By this side's order `from` is less than `to`. When that is so of every range of a chain, each row lies in exactly one of
   * them, though it may be another one than on the other side.
   */
  readonly ordered: boolean
}

export type KeyDigest = { readonly key: Key; readonly digest: string }

/** Rows of a table spread over 2^bits buckets by the digest of their key, or of themselves where there is none. */
export type Spread = {
  readonly bits: number
  /** Only these buckets; all when undefined. */
  readonly buckets?: readonly number[] | undefined
  /** Only a share of them, the same on both sides: `seed` chooses which. */
  readonly sample?: { readonly seed: string; readonly share: number } | undefined
}

export type BucketSum = { readonly bucket: number; readonly rows: bigint; readonly sum: string }

export type DigestCount = { readonly digest: string; readonly rows: number }

/** Rows that are asked for: by their keys, or by their digests where no key finds them. */
export type Rows =
  | { readonly kind: 'keys'; readonly keys: readonly Key[] }
  | { readonly kind: 'digests'; readonly digests: readonly string[] }

export type FullRow = { readonly digest: string; readonly cells: readonly Cell[] }

/**
 * What makes one row of the target equal. `before` is the digest that its row has: one that has another by then is left alone.
 * A row without a key is found by its digest, and `rows` of them are meant.
 */
export type Edit =
  | { readonly kind: 'insert'; readonly cells: readonly Cell[]; readonly rows: number }
  | {
      readonly kind: 'update'
      readonly key: Key | undefined
      readonly before: string
      readonly cells: readonly Cell[]
      /** Indexes of the columns whose values differ. */
      readonly changed: readonly number[]
    }
  | {
      readonly kind: 'delete'
      readonly key: Key | undefined
      readonly before: string
      readonly rows: number
    }

type Options = { readonly signal: AbortSignal }

export type OpenDigest = {
  /** Statements that run side by side at most; more wait. */
  readonly parallel: number
  readonly log: Log
  readonly signal: AbortSignal
}

/** Compares rows without moving them: digests of rows are computed in the database. */
export interface DigestSource {
  /** Opens sessions that only read, until `apply` is called. */
  openDigest(options: OpenDigest): Promise<Digester>
}

/** Calls may overlap. Every statement sees what is committed when it begins. */
export interface Digester extends AsyncDisposable {
  describe(table: TableShape, options: Options): Promise<Description>
  /** The key of the row that comes so many rows behind the beginning of a range, by this side's order; undefined when there is none. */
  border(
    table: DigestTable,
    range: KeyRange,
    options: Options & { readonly rows: number },
  ): Promise<Key | undefined>
  /** The least and the greatest value of the key's first column, when it is a whole number and there is one. */
  edges(
    table: DigestTable,
    options: Options,
  ): Promise<{ readonly first: bigint; readonly last: bigint } | undefined>
  sum(table: DigestTable, range: KeyRange, options: Options): Promise<RangeSum>
  /** Each row of a range: for ranges that are known to be small. */
  list(table: DigestTable, range: KeyRange, options: Options): Promise<readonly KeyDigest[]>
  /** The rows of these keys, found by equality as this side has it: the keys that come back may be spelled in another way. */
  look(table: DigestTable, keys: readonly Key[], options: Options): Promise<readonly KeyDigest[]>
  /** About how large each of these rows is: before whole rows are fetched. */
  sizes(
    table: DigestTable,
    keys: readonly Key[],
    options: Options,
  ): Promise<readonly { readonly key: Key; readonly sizeBytes: number }[]>
  /** Reads the table once; buckets without rows are left out. */
  spread(table: DigestTable, spread: Spread, options: Options): Promise<readonly BucketSum[]>
  /** The digests of all rows in some buckets, with how many rows have each. */
  tally(table: DigestTable, spread: Spread, options: Options): Promise<readonly DigestCount[]>
  /** How many rows have these digests; those of none are left out. */
  count(
    table: DigestTable,
    digests: readonly string[],
    options: Options,
  ): Promise<readonly DigestCount[]>
  /** Whole rows; one of those that are alike. For few rows: they are held in memory. */
  rows(table: DigestTable, which: Rows, options: Options): Promise<readonly FullRow[]>
  /** The statements of an edit, as an operator would run them: no semicolon at the end. */
  statements(table: DigestTable, edit: Edit): readonly string[]
  /**
   * Does edits in one transaction, deletes first, or none of them. Returns the indexes of those that found their row changed
   * and did nothing. With `replace` a row that is updated is deleted and inserted anew: for values of unique keys that change
   * places between rows. Throws `refused` when what fires on the target cannot be kept still.
   */
  apply(
    table: DigestTable,
    edits: readonly Edit[],
    options: Options & { readonly replace: boolean },
  ): Promise<readonly number[]>
}
