import { Fault } from '#base/faults'
import type { ApplyTable } from '#change/apply'
import { cellAbsent, cellNull, type Relation, type RowRun } from '#change/batch'
import type { ObjectName } from '#change/schema'
import { quoteName, quoteNames } from '../sql.ts'
import type { TableCascades } from './foreign-keys.ts'
import { anyValue, type CellHash, createHash, finish, hashString } from './key-hashes.ts'
import { type ColumnLiterals, createLiterals } from './literals.ts'
import type { TargetColumn, TargetTable } from './target-table.ts'

/** Texts that may equal any other one touch so many hashes, and plain ones one of them. */
const bucketsAlone = 1024
const bucketsBeside = 16

/** A column of the relation that rows are written to. */
export type ApplyColumn = {
  /** In the relation. */
  readonly index: number
  /** Of the target, quoted. */
  readonly name: string
  readonly target: TargetColumn
  readonly literals: ColumnLiterals
}

/** Of a unique key, or of what foreign keys point to. */
type HashedKey = {
  readonly seed: number
  readonly parts: readonly { readonly index: number; readonly hash: CellHash | undefined }[]
  readonly buckets: number
  /** Whether a value of no hash stands for the same whatever row it is in. */
  readonly alone: boolean
}

type Facts = {
  readonly target: TargetTable
  readonly cascades: TableCascades
  readonly charsets: ReadonlySet<string>
}

/** A table of the target, as the rows of one relation are written to it. */
export class MysqlApplyTable implements ApplyTable {
  readonly relation: Relation
  readonly target: ObjectName
  /** Its name, quoted. */
  readonly at: string
  readonly columns: readonly ApplyColumn[]
  /** Those by which a row is found; undefined where all columns have to do. */
  readonly rowKey: readonly ApplyColumn[] | undefined
  readonly keys: (run: RowRun) => Uint32Array
  /** Columns that may hold what is no value of theirs. */
  readonly enums: readonly ApplyColumn[]
  /** Undefined for one that is on parts of values, or on what is not written. */
  readonly uniqueKeys: readonly (readonly ApplyColumn[] | undefined)[]
  readonly isSequence: boolean
  /** Its rows are named in foreign keys that reach into other tables. */
  readonly isParent: boolean

  constructor(relation: Relation, { target, cascades, charsets }: Facts) {
    this.relation = relation
    this.isSequence = target.isSequence
    this.target = [target.database, target.name]
    this.at = quoteNames(target.database, target.name)
    this.columns = matchColumns(relation, target, charsets)
    this.enums = this.columns.filter(({ target: { word } }) => word === 'enum')
    const byName = new Map(this.columns.map((column) => [column.target.name.toLowerCase(), column]))
    const whole = target.keys.map(({ parts }) => {
      const columns = parts.map(({ column, prefix }) =>
        prefix || column === undefined ? undefined : byName.get(column.toLowerCase()),
      )
      return columns.every((column) => column !== undefined) ? columns : undefined
    })
    this.uniqueKeys = whole
    this.rowKey = whole.find((key): key is ApplyColumn[] => names(key, relation))
    this.isParent = cascades.referred.length > 0
    const hasher = new KeyHasher(this, target, cascades)
    this.keys = (run) => hasher.hash(run)
  }
}

/** Whether a key finds the row of every image before. */
function names(key: readonly ApplyColumn[] | undefined, relation: Relation): boolean {
  if (!key) return false
  return key.every(({ index, target }) => {
    const isThere = relation.before === 'full' || relation.columns[index]?.identifies === true
    return isThere && !target.nullable
  })
}

function matchColumns(
  relation: Relation,
  target: TargetTable,
  charsets: ReadonlySet<string>,
): ApplyColumn[] {
  const at = quoteNames(target.database, target.name)
  const byName = new Map(target.columns.map((column) => [column.name.toLowerCase(), column]))
  const columns: ApplyColumn[] = []
  for (const [index, column] of relation.columns.entries()) {
    const own = byName.get(column.name.toLowerCase())
    if (!own) {
      throw new Fault('different', `apply to ${at}: it has no column ${column.name}`, {
        hint: 'Add the column on the target, or copy the table anew.',
      })
    }
    byName.delete(column.name.toLowerCase())
    if (own.generated) continue
    const name = quoteName(own.name)
    const literals = createLiterals(column, own, { name, charsets })
    columns.push({ index, name, target: own, literals })
  }
  for (const { name, nullable, fills, generated } of byName.values()) {
    if (nullable || fills || generated) continue
    throw new Fault('different', `apply to ${at}: column ${name} wants a value and gets none`, {
      hint: 'Give it a default on the target.',
    })
  }
  return columns
}

class KeyHasher {
  readonly #relation: Relation
  readonly #keys: readonly HashedKey[]
  /** Touched by every row. */
  readonly #always: readonly number[]
  /** Touched where cascades reach farther than a row tells. */
  readonly #family: number | undefined
  readonly #isParent: boolean
  readonly #refers: readonly number[]

  constructor(table: MysqlApplyTable, target: TargetTable, cascades: TableCascades) {
    this.#relation = table.relation
    const always: number[] = []
    if (table.rowKey === undefined) always.push(hashString(`table ${table.at}`))
    const family =
      cascades.family === undefined ? undefined : hashString(`family ${cascades.family}`)
    if (cascades.deep && family !== undefined) always.push(family)
    this.#always = always
    this.#family = cascades.deep ? undefined : family
    this.#isParent = cascades.referred.length > 0
    const byName = new Map(
      table.columns.map((column) => [column.target.name.toLowerCase(), column]),
    )
    const key = (seed: string, names: readonly (string | undefined)[]) =>
      hashedKey(
        table,
        seed,
        names.map((name) => byName.get(name?.toLowerCase() ?? '')),
      )
    const refers = cascades.refers.map(({ parent, own, referred }) =>
      key(referredSeed(parent, referred), own),
    )
    this.#keys = [
      ...target.keys.map(({ name, parts }) =>
        key(
          `key ${table.at} ${name}`,
          parts.map(({ column, prefix }) => (prefix ? undefined : column)),
        ),
      ),
      ...cascades.referred.map((names) => key(referredSeed(table.at, names), names)),
      ...refers,
    ]
    this.#refers = refers.flatMap(({ parts }) => parts.map(({ index }) => index))
  }

  hash(run: RowRun): Uint32Array {
    const out = new HashList()
    for (const hash of this.#always) out.add(hash)
    const width = this.#relation.columns.length * 2
    const images = run.rows * (run.kind === 'update' ? 2 : 1)
    const anyOf = new Set<HashedKey>()
    for (let image = 0; image < images; image++) {
      for (const key of this.#keys) addKey(out, key, run, image * width, anyOf)
    }
    if (this.#family !== undefined && this.#reachesFar(run, width)) out.add(this.#family)
    return out.take()
  }

  /** A parent's row that goes takes rows along that are named by no cell; a child's image may not have what it refers to. */
  #reachesFar(run: RowRun, width: number): boolean {
    if (this.#isParent && run.kind !== 'insert') return true
    if (this.#refers.length === 0 || this.#relation.before === 'full') return false
    const images = run.cells.length / width
    for (let image = 0; image < images; image++) {
      for (const index of this.#refers) {
        if (run.cells[image * width + index * 2] === cellAbsent) return true
      }
    }
    return false
  }
}

function referredSeed(parent: string, names: readonly string[]): string {
  return `referred ${parent} ${names.join(',').toLowerCase()}`
}

function hashedKey(
  table: MysqlApplyTable,
  seed: string,
  columns: readonly (ApplyColumn | undefined)[],
): HashedKey {
  const parts = columns
    .filter((column) => column !== undefined)
    .map(({ index, target }) => {
      const column = table.relation.columns[index]
      return { index, hash: column && createHash(column, target) }
    })
  const alone = !parts.some(({ hash }) => hash && !hash.folded)
  const folds = parts.some(({ hash }) => hash?.folded)
  const buckets = folds ? (alone ? bucketsAlone : bucketsBeside) : 0
  return { seed: hashString(seed), parts, buckets, alone }
}

/** What one image touches in one key; nothing where NULL is in it, which equals nothing. */
function addKey(
  out: HashList,
  key: HashedKey,
  run: RowRun,
  at: number,
  anyOf: Set<HashedKey>,
): void {
  const { seed, parts, buckets, alone } = key
  let exact = seed
  let text = 0x811c9dc5
  for (const { index, hash } of parts) {
    const start = run.cells[at + index * 2] ?? cellAbsent
    if (start === cellNull || start === cellAbsent) return
    if (!hash) continue
    const end = run.cells[at + index * 2 + 1] ?? 0
    if (!hash.folded) exact = hash.mixCell(exact, run.bytes, start, end)
    else if (text !== anyValue) text = hash.mixCell(text, run.bytes, start, end)
  }
  if (buckets === 0) return out.add(finish(exact))
  if (text !== anyValue) return out.add(finish(exact + (finish(text) % buckets)))
  if (alone && anyOf.has(key)) return
  if (alone) anyOf.add(key)
  for (let bucket = 0; bucket < buckets; bucket++) out.add(finish(exact + bucket))
}

/** Grows as it is filled. */
class HashList {
  #hashes = new Uint32Array(64)
  #count = 0
  #last = -1

  /** Images before and after are mostly of one key. */
  add(hash: number): void {
    if (hash === this.#last) return
    this.#last = hash
    if (this.#count === this.#hashes.length) {
      const larger = new Uint32Array(this.#count * 2)
      larger.set(this.#hashes)
      this.#hashes = larger
    }
    this.#hashes[this.#count++] = hash
  }

  take(): Uint32Array {
    return this.#hashes.subarray(0, this.#count)
  }
}
