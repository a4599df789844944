import { Fault } from '#base/faults'
import type { Address, Session } from '../connection.ts'
import { parseLsn, toAt } from '../lsn.ts'
import type { Wire } from '../protocol/wire.ts'
import type { LogEnd } from './flow.ts'

const wayOut = 'Begin the copy anew: `redoubt migrate` without --resume and with an empty target.'

/**
 * Refuses a slot that does not lead on from `after`. The server itself would begin where the slot stands without a word, and
 * what lies between would be missing.
 */
export async function checkSlot(
  session: Session,
  options: {
    readonly slot: string
    readonly after: bigint
    readonly address: Address
    readonly signal: AbortSignal
  },
): Promise<void> {
  const { slot, after, address, signal } = options
  const doing = `read changes from ${toAt(after)} on`
  const [row] = await session.query(
    `select slot_type, plugin, database, confirmed_flush_lsn as confirmed, restart_lsn as restart,
       to_jsonb(s) ->> 'wal_status' as wal_status, to_jsonb(s) ->> 'invalidation_reason' as reason,
       case when not pg_is_in_recovery() then pg_current_wal_flush_lsn() end as ends
     from pg_replication_slots s where slot_name = $1`,
    { signal, values: [slot], doing: `look for replication slot ${slot}` },
  )
  if (!row) {
    throw new Fault('log-lost', `${doing}: replication slot ${slot} is gone`, {
      hint: `It was dropped, or lost in a failover. ${wayOut}`,
    })
  }
  if (
    row['slot_type'] !== 'logical' ||
    row['plugin'] !== 'pgoutput' ||
    row['database'] !== address.database
  ) {
    const what = `${row['slot_type']} ${row['plugin'] ?? ''} of database ${row['database'] ?? 'none'}`
    throw new Fault('refused', `${doing}: replication slot ${slot} is another one: ${what}`, {
      hint: 'Give the link another name, or drop the slot if nobody needs it.',
    })
  }
  const confirmed = row['confirmed'] ?? undefined
  if (row['wal_status'] === 'lost' || row['restart'] === null || confirmed === undefined) {
    throw new Fault(
      'log-lost',
      `${doing}: replication slot ${slot} is lost (${row['reason'] ?? 'log was removed'})`,
      {
        hint: `Set max_slot_wal_keep_size higher than the log of the longest outage. ${wayOut}`,
      },
    )
  }
  if (parseLsn(confirmed) > after) {
    throw new Fault(
      'log-lost',
      `${doing}: replication slot ${slot} is ahead, at ${toAt(parseLsn(confirmed))}`,
      {
        hint: `Somebody else read from the slot, or it was made anew. ${wayOut}`,
      },
    )
  }
  const ends = row['ends'] ?? undefined
  if (ends !== undefined && parseLsn(ends) < after) {
    throw new Fault(
      'source-changed',
      `${doing}: the server's log ends at ${toAt(parseLsn(ends))}, before that`,
      {
        hint: `The server was set back to an older state. ${wayOut}`,
      },
    )
  }
}

/** Drops a slot that is there; one that somebody reads from is `locked`. */
export async function dropLogicalSlot(
  session: Session,
  slot: string,
  signal: AbortSignal,
): Promise<void> {
  await session.query(
    'select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1',
    { signal, values: [slot], doing: `drop replication slot ${slot}` },
  )
}

/** Where the server's log ends now: of a standby, what it has replayed. */
export async function readLogEnd(session: Session, signal: AbortSignal): Promise<LogEnd> {
  const doing = 'read where the log ends'
  const [row] = await session.query(
    `select (extract(epoch from clock_timestamp()) * 1000000)::bigint as us,
       case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end as lsn`,
    { signal, doing },
  )
  const { lsn, us } = row ?? {}
  if (typeof lsn !== 'string' || typeof us !== 'string')
    throw new Fault('protocol', `${doing}: nothing came`)
  return { lsn: parseLsn(lsn), timeUs: BigInt(us) }
}

/** Starts the stream; what comes after it is CopyData. */
export async function startStream(
  wire: Wire,
  options: {
    readonly slot: string
    readonly sql: string
    readonly signal: AbortSignal
  },
): Promise<void> {
  wire.sendQuery(options.sql)
  await wire.expect(options.signal, `read changes from replication slot ${options.slot}`, 'W')
}
