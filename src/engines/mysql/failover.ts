import type { Flavor } from './flavor.ts'
import { createGtidSet, type GtidSet } from './gtid.ts'
import type { Session } from './protocol/session.ts'
import { quotePlain } from './sql.ts'
import type { LogFile } from './server.ts'

/** Events at a file's head among which the set of earlier transactions stands. */
const headEvents = 4

/**
 * The newest file of another server before which nothing stands that we do not know: from its start on the two logs
 * overlap without a hole. Undefined when that server purged such a file or is not of the same descent.
 */
export async function findFileOf(
  control: Session,
  flavor: Flavor,
  files: readonly LogFile[],
  known: GtidSet,
  signal: AbortSignal,
): Promise<string | undefined> {
  for (const { name } of files.toReversed()) {
    const text = await readHead(control, name, signal)
    if (text === undefined) continue
    const before = createGtidSet(flavor.family, text)
    // An empty head says that the file holds the very beginning, which must be ours as well to be of use.
    if (known.covers(before)) return name
  }
  return undefined
}

/** The set in a file's previous-GTIDs event or GTID list. */
async function readHead(
  control: Session,
  name: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  const sql = `SHOW BINLOG EVENTS IN ${quotePlain(name)} LIMIT ${headEvents}`
  for (const row of await control.texts(sql, { signal })) {
    if (row[2] === 'Previous_gtids') return row[5] ?? ''
    if (row[2] === 'Gtid_list') return (row[5] ?? '').replaceAll(/[[\]]/g, '')
  }
  return undefined
}
