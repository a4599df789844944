import type { RestoreRequest } from '#engines'
import { Fault } from '#base/faults'
import { readRows } from './base.ts'
import { hasRows, loadRows, readCatalog, selectRows, type Table } from './catalog.ts'
import { parseFlavor } from './flavor.ts'
import { RowKernel } from './row-kernel.ts'
import { createDatabase, keepHistory, loadSettings } from './script.ts'
import type { Endpoint } from './protocol/endpoint.ts'
import { Session } from './protocol/session.ts'
import { openLoader } from './load.ts'
import { hasTable } from './server.ts'
import { quoteName, quoteNames } from './sql.ts'
import { selectTables } from './targets.ts'
import { TargetSettings } from './target-settings.ts'

/** Copies the wanted tables from one server, which nobody else uses, into another. */
export async function copySelection(
  from: Endpoint,
  to: Endpoint,
  request: Pick<RestoreRequest, 'only' | 'force' | 'signal' | 'log' | 'progress'>,
): Promise<void> {
  const { signal, progress } = request
  const selection = selectTables(request.only)
  await using source = await Session.open(from, { signal })
  const version = await source.one('SELECT @@global.version', { signal })
  const catalog = await readCatalog(source, parseFlavor(version?.[0] ?? ''), signal)
  const tables = catalog.tables.filter((table) => selection.accepts(table.database, table.name))
  await source.query(
    `SET SESSION sql_mode = '', time_zone = '+00:00', character_set_results = NULL`,
    { signal },
  )
  const kernel = new RowKernel()
  await using _settings = await TargetSettings.open(to, request.log, signal)
  // In its log: it may have replicas and be protected.
  await using target = await openLoader({ endpoint: to, unlogged: false, signal })
  progress.phase = 'copy tables from the scratch server'
  for (const database of catalog.databases.filter((one) => selection.touches(one.name))) {
    await target.query(createDatabase(database.create), { signal })
  }
  for (const table of tables) await makePlace(target, table, request)
  for (const table of tables.filter(hasRows)) {
    progress.current = `${table.database}.${table.name}`
    const counted = { rows: 0, bytes: 0 }
    const rows = readRows(
      { session: source, kernel },
      selectRows(table, undefined),
      counted,
      signal,
    )
    const content = owned(rows)
    if (table.versioned) await target.query(keepHistory, { signal })
    const loaded = await target.load(loadRows(table, table.columns, 'rows'), content, { signal })
    if (loaded.affectedRows !== counted.rows) {
      throw new Fault(
        'different',
        `copy ${quoteNames(table.database, table.name)}: ${loaded.affectedRows} of ${counted.rows} rows arrived`,
      )
    }
  }
  for (const statement of loadSettings) await target.query(statement, { signal })
}

/** The socket may keep what it is given for longer than rows last. */
async function* owned(rows: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, void> {
  for await (const lines of rows) yield Buffer.from(lines)
}

async function makePlace(
  target: Session,
  table: Table,
  request: Pick<RestoreRequest, 'force' | 'signal'>,
): Promise<void> {
  const { signal, force } = request
  const at = quoteNames(table.database, table.name)
  const there = await hasTable(target, table, signal)
  if (there && !force) {
    throw new Fault('refused', `restore ${at}: the table is there`, {
      hint: 'Say --force to replace it.',
    })
  }
  if (there) await target.query(`DROP TABLE ${at}`, { signal })
  await target.query(`USE ${quoteName(table.database)}`, { signal })
  await target.query(table.create, { signal })
}
