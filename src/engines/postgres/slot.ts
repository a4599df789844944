import { createHash } from 'node:crypto'
import { Fault } from '#base/faults'
import type { Session } from './connection.ts'
import { parseLsn } from './lsn.ts'
import type { Wire } from './protocol/wire.ts'

/**
 * The name of the replication slot and of the standby for an archiver: `redoubt_shop`. What a slot name cannot hold
 * becomes an underscore, and a hash keeps two such names apart.
 */
export function slotName(name: string): string {
  const plain = `redoubt_${name.toLowerCase().replace(/[^a-z0-9_]/g, '_')}`
  if (plain === `redoubt_${name}` && plain.length <= 63) return plain
  const hash = createHash('sha256').update(name).digest('hex').slice(0, 8)
  return `${plain.slice(0, 54)}_${hash}`
}

export type Slot = {
  readonly restart: bigint | undefined
  /** `reserved`, `extended`, `unreserved`, `lost`; undefined before PostgreSQL 13. */
  readonly walStatus: string | undefined
  readonly activePid: number | undefined
}

/** What the server knows of a slot; undefined when there is none. */
export async function readSlot(
  session: Session,
  name: string,
  signal: AbortSignal,
): Promise<Slot | undefined> {
  const [row] = await session.query(
    `select slot_type, restart_lsn, active_pid, to_jsonb(s) ->> 'wal_status' as wal_status
     from pg_replication_slots s where slot_name = $1`,
    { signal, values: [name], doing: `look for replication slot ${name}` },
  )
  if (!row) return undefined
  if (row['slot_type'] !== 'physical') {
    throw new Fault('refused', `use replication slot ${name}: it is a logical one`, {
      hint: 'Choose another --name.',
    })
  }
  const restart = row['restart_lsn'] ?? undefined
  const activePid = row['active_pid'] ?? undefined
  const walStatus = row['wal_status'] ?? undefined
  return {
    restart: restart === undefined ? undefined : parseLsn(restart),
    walStatus,
    activePid: activePid === undefined ? undefined : Number(activePid),
  }
}

/** Before 13 a lost slot shows nothing but that it has no position any more. */
export function isLost(slot: Slot): boolean {
  return slot.walStatus === 'lost' || (slot.walStatus === undefined && slot.restart === undefined)
}

/** Makes the slot; from now on the server keeps the WAL from its last checkpoint on. */
export async function createSlot(wire: Wire, name: string, signal: AbortSignal): Promise<void> {
  await wire.query(
    `CREATE_REPLICATION_SLOT "${name}" PHYSICAL RESERVE_WAL`,
    signal,
    `make replication slot ${name}`,
  )
}

export async function dropSlot(wire: Wire, name: string, signal: AbortSignal): Promise<void> {
  await wire.query(`DROP_REPLICATION_SLOT "${name}"`, signal, `drop replication slot ${name}`)
}
