import type { ColumnShape, ObjectName, Schema, SchemaObject, TableShape } from '#change/schema'

/** An object that is not alike on both sides. */
export type StructureDifference = {
  readonly kind: 'missing' | 'extra' | 'different'
  /** `table shop.orders`, `index orders_at on shop.orders`. */
  readonly object: string
  /** What differs, where both have it. */
  readonly said: string
}

export type StructureOptions = {
  readonly source: Schema
  /** Read with its names turned back into the source's. */
  readonly target: Schema
  readonly unmap: (name: ObjectName) => ObjectName
}

/**
 * Compares the objects of two schemas by name, tables by their columns and keys; statements only between servers of the same
 * version, since others say the same in other words. Values of sequences move on, and are not compared.
 */
export function compareStructure({ source, target, unmap }: StructureOptions): {
  readonly objects: number
  readonly differences: readonly StructureDifference[]
} {
  const differences: StructureDifference[] = []
  const there = new Map(target.objects.map((object) => [identify(object, unmap), object]))
  const tables = new Map(target.tables.map((shape) => [key(unmap(shape.name)), shape]))
  const sameVersion =
    source.flavor === target.flavor && release(source.version) === release(target.version)
  let objects = 0
  for (const object of source.objects) {
    if (isValue(object)) continue
    objects += 1
    const other = there.get(identify(object, (name) => name))
    if (!other) differences.push({ kind: 'missing', object: object.id, said: 'not on the target' })
    else if (sameVersion && !sameStatements(object, other)) {
      differences.push({ kind: 'different', object: object.id, said: 'its definition differs' })
    }
    there.delete(identify(object, (name) => name))
  }
  for (const object of there.values()) {
    if (isValue(object)) continue
    differences.push({ kind: 'extra', object: object.id, said: 'not on the source' })
  }
  for (const shape of source.tables) {
    const other = tables.get(key(shape.name))
    if (!other) continue
    const said = compareTables(shape, other, source.flavor === target.flavor)
    if (said.length === 0) continue
    const object = `table ${shape.name.join('.')}`
    const before = differences.findIndex((one) => one.object === object)
    const found = { kind: 'different', object, said: said.join('; ') } as const
    if (before < 0) differences.push(found)
    else differences[before] = found
  }
  return { objects, differences }
}

function identify(object: SchemaObject, unmap: (name: ObjectName) => ObjectName): string {
  const [name, table] = [unmap(object.name), object.table && unmap(object.table)]
  // Only where it was renamed: overloaded functions have one name, and ids that tell them apart.
  if (key(name) === key(object.name) && key(table ?? []) === key(object.table ?? [])) {
    return object.id
  }
  const shown = (path: ObjectName) => path.join('.')
  const renamed = object.id.replace(shown(object.name), shown(name))
  return object.table && table ? renamed.replace(shown(object.table), shown(table)) : renamed
}

function key(name: ObjectName): string {
  return JSON.stringify(name)
}

/** The value of a sequence, which goes on while it is looked at; a comment is an object of its own and no value. */
function isValue({ kind, stage }: SchemaObject): boolean {
  return kind === 'sequence' && stage === 'end'
}

function release(version: string): string {
  return version.split('.').slice(0, 2).join('.')
}

function sameStatements(a: SchemaObject, b: SchemaObject): boolean {
  return plain(a.statements) === plain(b.statements)
}

function plain(statements: readonly string[]): string {
  return statements.map((text) => text.replaceAll(/ AUTO_INCREMENT=\d+/g, '')).join(';\n')
}

function compareTables(
  source: TableShape,
  target: TableShape,
  sameFlavor: boolean,
): readonly string[] {
  const said: string[] = []
  const there = new Map(target.columns.map((column) => [column.name, column]))
  for (const column of source.columns) {
    const other = there.get(column.name)
    there.delete(column.name)
    if (!other) said.push(`column ${column.name} is missing`)
    else if (sameFlavor || !isJson(column, other)) said.push(...compareColumns(column, other))
  }
  for (const name of there.keys()) said.push(`column ${name} is extra`)
  const common = source.columns.filter(({ name }) =>
    target.columns.some((one) => one.name === name),
  )
  const order = target.columns.filter(({ name }) => common.some((one) => one.name === name))
  if (common.some(({ name }, at) => order[at]?.name !== name))
    said.push('columns are in another order')
  const keys = new Map(target.keys.map((one) => [one.name, one.columns.join(', ')]))
  for (const { name, columns } of source.keys) {
    const other = keys.get(name)
    keys.delete(name)
    if (other === undefined) said.push(`key ${name} is missing`)
    else if (other !== columns.join(', '))
      said.push(`key ${name} is on (${other}), not (${columns.join(', ')})`)
  }
  for (const name of keys.keys()) said.push(`key ${name} is extra`)
  return said
}

/** MariaDB's JSON is a text of its own charset, which other servers have a type for. */
function isJson(one: ColumnShape, other: ColumnShape): boolean {
  return [one.type, other.type].sort().join() === 'json,longtext'
}

function compareColumns(source: ColumnShape, target: ColumnShape): readonly string[] {
  const { name } = source
  const said: string[] = []
  const differs = (what: string, from: string, to: string) => {
    if (from !== to) said.push(`column ${name}: ${what} is ${to || 'none'}, not ${from || 'none'}`)
  }
  differs('type', plainType(source.type), plainType(target.type))
  differs('nullability', String(source.nullable), String(target.nullable))
  differs('generation', String(source.generated), String(target.generated))
  differs('character set', plainCharset(source.charset), plainCharset(target.charset))
  differs('collation', plainCharset(source.collation), plainCharset(target.collation))
  return said
}

/** Widths of integers are a matter of display, and some versions do not tell them. */
function plainType(type: string): string {
  return type
    .replace(/^((?:tiny|small|medium|big)?int)\(\d+\)(?!.*zerofill)/, '$1')
    .replace(/^year\(4\)/, 'year')
}

function plainCharset(name: string | undefined): string {
  return (name ?? '').replace(/^utf8(?=_|$)/, 'utf8mb3')
}
