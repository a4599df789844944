import { Fault, isFault } from '#base/faults'
import type { Flavor } from './flavor.ts'
import type { Session } from './protocol/session.ts'

/** InnoDB's numbers of all partitions by their names; undefined where this user may not ask. */
export type PartitionIds = ReadonlyMap<string, string> | undefined

/**
 * Partitions that are exchanged keep their tables' definitions: only InnoDB's own numbers tell. Where schema changes
 * are kept away during a base nobody needs to look.
 */
export async function readPartitions(
  session: Session,
  flavor: Flavor,
  signal: AbortSignal,
): Promise<PartitionIds> {
  if (flavor.instanceLock) return undefined
  try {
    const rows = await session.texts(
      `SELECT NAME, TABLE_ID FROM information_schema.INNODB_SYS_TABLES WHERE NAME LIKE '%#p#%'`,
      { signal },
    )
    return new Map(rows.map(([name, id]) => [name ?? '', id ?? '']))
  } catch (error) {
    if (!isFault(error, 'denied', 'engine')) throw error
    return undefined
  }
}

/** Refuses when a partition was replaced between the two readings. */
export function comparePartitions(before: PartitionIds, after: PartitionIds): void {
  for (const [name, id] of before ?? []) {
    const now = after?.get(name)
    if (now === undefined || now === id) continue
    throw new Fault('conflict', `copy partition ${name}: it was exchanged or truncated meanwhile`, {
      hint: 'Take the base again, at a time without schema changes.',
      recovery: 'retry',
    })
  }
}
