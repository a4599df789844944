import type { BaseFacts, Check, EngineKind } from '#engines'
import { beatDatabase } from './beat.ts'
import { fromUserTables, isTransactional } from './catalog.ts'
import { compareDigests } from './compare-digests.ts'
import type { StoredTable } from './layout.ts'
import type { ReplayPlan } from './plan.ts'
import type { Endpoint } from './protocol/endpoint.ts'
import { Session } from './protocol/session.ts'
import { makePlan, openScratch } from './restore.ts'
import { quoteNames } from './sql.ts'

/**
 * Restores into a scratch server, compares the rows of a logical base with what was recorded when it was taken, has the
 * server check every table and looks how far the heartbeat came.
 */
export const proveMysql: EngineKind['prove'] = async (request, directory) => {
  const plan = await makePlan(request)
  const { signal, base } = request
  let compared: Check | undefined
  const onLoaded = async (endpoint: Endpoint, tables: readonly StoredTable[]) => {
    compared = await compareDigests(endpoint, base, tables, request)
  }
  try {
    await using scratch = await openScratch({ ...request, onLoaded }, plan, directory)
    await using session = await Session.open(scratch.server.endpoint, { signal })
    const checks = [loaded(base), ...(compared ? [compared] : []), replayed(plan)]
    checks.push(await checkTables(session, base.details['tables'], signal))
    const beat = await checkBeat(session, signal)
    if (beat) checks.push(beat)
    return { result: scratch.result, checks }
  } catch (error) {
    const differs = asFailed(compared)
    if (!differs || signal.aborted) throw error
    // Log does not fit onto rows that are not those of the base: that is what the proof found, and it is recorded.
    const failed = { name: 'log replayed', ok: false, said: String(error) }
    const result = { last: undefined, reached: base.consistent, next: [] }
    return { result, checks: [loaded(base), differs, failed] }
  }
}

function asFailed(check: Check | undefined): Check | undefined {
  return check?.ok === false ? check : undefined
}

function loaded(base: BaseFacts): Check {
  if (base.form === 'physical') {
    const said = 'the backup program made them consistent'
    return { name: 'data files prepared', ok: true, said }
  }
  const said = `${base.details['rows']} rows of the base went in, each file as many as were recorded`
  return { name: 'rows loaded', ok: true, said }
}

function replayed({ transactions }: ReplayPlan): Check {
  const said = `${transactions} transactions, each event's checksum right`
  return { name: 'log replayed', ok: true, said }
}

/** `CHECK TABLE` reads every page of every index and compares them; `inBase` is how many tables the base has, if it tells. */
async function checkTables(
  session: Session,
  inBase: string | undefined,
  signal: AbortSignal,
): Promise<Check> {
  const name = 'CHECK TABLE'
  const rows = await session.texts(`SELECT TABLE_SCHEMA, TABLE_NAME, ENGINE ${fromUserTables}`, {
    signal,
  })
  if (rows.length === 0) {
    if (inBase === '0') return { name, ok: true, said: 'the base has no tables: nothing to check' }
    const had = inBase === undefined ? '' : `, and the base has ${inBase}`
    return { name, ok: false, said: `nothing was checked: no table came back${had}` }
  }
  const bad: string[] = []
  for (const [database, table, engine] of rows) {
    const at = quoteNames(database ?? '', table ?? '')
    const how = isTransactional(engine ?? '') ? '' : ' EXTENDED'
    const said = await session.texts(`CHECK TABLE ${at}${how}`, { signal })
    const wrong = said.filter(
      ([, , kind, text]) => kind === 'error' || (kind === 'status' && text !== 'OK'),
    )
    bad.push(...wrong.map(([, , , text]) => `${at}: ${text}`))
  }
  const said = bad.length === 0 ? `${rows.length} tables are sound` : bad.slice(0, 5).join('; ')
  return { name, ok: bad.length === 0, said }
}

async function checkBeat(session: Session, signal: AbortSignal): Promise<Check | undefined> {
  const tables = await session.texts(
    `SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = '${beatDatabase}' AND TABLE_NAME = 'heartbeat'`,
    { signal },
  )
  if (tables.length === 0) return undefined
  const row = await session.one(`SELECT at FROM ${beatDatabase}.heartbeat`, { signal })
  return {
    name: 'heartbeat',
    ok: row !== undefined,
    said: `the last one is of ${row?.[0] ?? 'never'}`,
  }
}
