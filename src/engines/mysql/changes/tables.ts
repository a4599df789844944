import type { Relation, RelationColumn } from '#change/batch'
import type { Selection } from '#change/schema'
import { comparePlaces, type Place } from '../position.ts'
import type { CellLayout } from './cells.kernel.ts'
import {
  type CatalogColumn,
  type CollationCharsets,
  columnsOfCatalog,
  columnsOfMap,
  metadataHint,
} from './columns.ts'
import {
  columnType,
  decodeTableMap,
  decodeTableNames,
  fixedSize,
  lengthSize,
  readTableId,
  type TableMap,
} from './table-map.ts'
import { Fault } from '#base/faults'

/** A table's columns by the catalog, and the end of the log when they had been read. */
export type CatalogTable = { readonly columns: readonly CatalogColumn[]; readonly end: Place }

export type ReadCatalogTable = (
  database: string,
  table: string,
) => Promise<CatalogTable | undefined>

/** A wanted table in the form that a table map gave it. */
export class MappedTable {
  readonly map: TableMap
  readonly layout: CellLayout
  /** The table map as it came, but for its number. */
  readonly bytes: Buffer
  /** The catalog as it was read, where names are from it. */
  readonly named: CatalogTable | undefined
  readonly #columns: readonly RelationColumn[]
  readonly #number: () => number
  #relations = new Map<Relation['before'], Relation>()
  #latest: Relation | undefined

  constructor(parts: {
    readonly map: TableMap
    readonly bytes: Buffer
    readonly columns: readonly RelationColumn[]
    readonly named: CatalogTable | undefined
    readonly number: () => number
  }) {
    this.map = parts.map
    this.bytes = parts.bytes
    this.named = parts.named
    this.#columns = parts.columns
    this.#number = parts.number
    this.layout = layoutOf(parts.map)
  }

  /** Rows were given out in this form. */
  get used(): boolean {
    return this.#latest !== undefined
  }

  /** The relation of rows with such images before; of inserts, which have none, that of the rows before them. */
  relation(before: Relation['before'] | undefined): Relation {
    if (before === undefined && this.#latest) return this.#latest
    const wanted = before ?? 'full'
    const { database, table } = this.map
    const relation = this.#relations.get(wanted) ?? {
      id: this.#number(),
      name: [database, table],
      columns: this.#columns,
      form: 'mysql/row-image',
      before: wanted,
    }
    this.#relations.set(wanted, relation)
    this.#latest = relation
    return relation
  }
}

function layoutOf(map: TableMap): CellLayout {
  const count = map.columns.length
  const lengthSizes = new Uint8Array(count)
  const sizes = new Int32Array(count)
  const patchable = new Uint8Array(count)
  for (const [index, { code, modifier }] of map.columns.entries()) {
    const size = fixedSize(code, modifier)
    if (size === undefined) lengthSizes[index] = lengthSize(code, modifier)
    else sizes[index] = size
    patchable[index] = code === columnType.json ? 1 : 0
  }
  return { columns: count, lengthSizes, sizes, patchable }
}

type Known = MappedTable | 'unwanted'

/** Knows tables by the numbers that the log gives them, and in which form each is at the present place. */
export class Tables {
  readonly #selection: Pick<Selection, 'accepts'>
  readonly #charsets: CollationCharsets
  readonly #readCatalog: ReadCatalogTable
  #byId = new Map<number, Known>()
  /** The newest form of each table. */
  readonly #byName = new Map<string, MappedTable>()
  #relations = 0

  constructor(options: {
    readonly selection: Pick<Selection, 'accepts'>
    readonly charsets: CollationCharsets
    readonly readCatalog: ReadCatalogTable
  }) {
    this.#selection = options.selection
    this.#charsets = options.charsets
    this.#readCatalog = options.readCatalog
  }

  get(id: number): Known | undefined {
    return this.#byId.get(id)
  }

  /** Numbers hold for one statement, and are given anew after a restart. */
  forgetNumbers(): void {
    if (this.#byId.size > 64) this.#byId = new Map()
  }

  /** Takes a table map. Waits only where the catalog has to be asked. */
  take(body: Buffer, idSize: number): Promise<void> | undefined {
    const id = readTableId(body, idSize)
    const bytes = body.subarray(idSize)
    const before = this.#byId.get(id)
    if (before instanceof MappedTable && before.bytes.equals(bytes) && this.#isNewest(before)) {
      return undefined
    }
    const { database, table } = decodeTableNames(body, idSize)
    if (!this.#selection.accepts([database, table])) {
      this.#byId.set(id, 'unwanted')
      return undefined
    }
    const same = this.#byName.get(nameKey(database, table))
    if (same?.bytes.equals(bytes)) {
      this.#byId.set(id, same)
      return undefined
    }
    return this.#learn(id, decodeTableMap(body, idSize), Buffer.from(bytes))
  }

  #isNewest(known: MappedTable): boolean {
    return this.#byName.get(nameKey(known.map.database, known.map.table)) === known
  }

  async #learn(id: number, map: TableMap, bytes: Buffer): Promise<void> {
    const { database, table } = map
    const named = map.columns.every((column) => column.name !== undefined)
    const catalog = await this.#readCatalog(database, table)
    if (!named && !catalog) {
      throw new Fault('source-changed', `read changes of ${database}.${table}: it is gone`, {
        hint: metadataHint,
      })
    }
    const columns =
      named || !catalog
        ? columnsOfMap(map, this.#charsets, catalog?.columns)
        : columnsOfCatalog(map, catalog.columns, this.#charsets)
    const number = () => this.#relations++
    const own = new MappedTable({
      map,
      bytes,
      columns,
      named: named ? undefined : catalog,
      number,
    })
    this.#byId.set(id, own)
    this.#byName.set(nameKey(database, table), own)
  }

  /**
   * A statement at `place` may have changed tables: their columns are looked up anew. What was given out before it by a
   * catalog that was read behind it may have had other names.
   */
  changed(place: Place, mayRename: boolean, isNamed: (table: string) => boolean): void {
    for (const [key, known] of this.#byName) {
      const { database, table } = known.map
      if (!isNamed(table)) continue
      const { named } = known
      if (mayRename && named && known.used && comparePlaces(place, named.end) <= 0) {
        throw new Fault(
          'source-changed',
          `read changes of ${database}.${table}: it was altered at ${place.file}:${place.offset}, before its columns were looked up`,
          { hint: metadataHint },
        )
      }
      this.#byName.delete(key)
    }
  }
}

function nameKey(database: string, table: string): string {
  return `${database}\0${table}`
}
