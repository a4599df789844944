import type { Catalog, View } from './catalog.ts'
import { toText } from './layout.ts'
import { idOf, type NameMap } from './schema-names.ts'
import type { Gathered } from './schema-read.ts'
import { writeStatement } from './schema-statement.ts'
import { quoteName } from './sql.ts'

/** Views, each behind those that it uses. */
export function readViews(catalog: Catalog, names: NameMap, into: Gathered): void {
  const ids = new Map<string, string>()
  const add = (kind: string, database: string, name: string) =>
    ids.set(JSON.stringify([database, name]), idOf(kind, database, name))
  for (const { kind, database, name } of catalog.programs) {
    if (kind === 'function') add(kind, database, name)
  }
  for (const { database, name } of catalog.views) add('view', database, name)
  for (const view of catalog.views) readView(view, names, into, ids)
}

function readView(
  view: View,
  names: NameMap,
  into: Gathered,
  ids: ReadonlyMap<string, string>,
): void {
  const { database, name, charset, collation } = view
  const id = idOf('view', database, name)
  if (view.columns.length === 0) {
    into.findings.push({
      severity: 'warns',
      code: 'view-broken',
      said: `${id} does not work on the source: what it uses is gone, or its definer may not use it; it is left out`,
    })
    return
  }
  const text = toText(view.create)
  const { sql, seen } = 'text' in text ? names.pairs(text.text) : { sql: undefined, seen: [] }
  const own = JSON.stringify([database, name])
  const needs = seen
    .map((pair) => JSON.stringify(pair))
    .filter((pair) => pair !== own)
    .flatMap((pair) => ids.get(pair) ?? [])
  into.objects.push({
    id,
    kind: 'view',
    name: [database, name],
    target: names.object(database, name),
    stage: 'end',
    statements: [
      `USE ${quoteName(names.database(database))}`,
      `SET SESSION character_set_client = ${charset}, collation_connection = ${collation}`,
      writeStatement(sql === undefined ? view.create : Buffer.from(sql)),
    ],
    needs: [...new Set(needs)],
  })
}
