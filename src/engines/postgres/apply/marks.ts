import { Fault } from '#base/faults'
import type { Mark } from '#change/apply'
import type { Session } from '../connection.ts'

/** How far each lane of a link is, written in the transactions that bring the data. */
export const appliedMarks = 'redoubt.applied_change'

/** What was settled by a policy, for the user to read. */
export const conflictTable = 'redoubt.conflict'

/** Rows that had to make room while changes and copied rows were brought together, until their own change comes. */
export const displacedTable = 'redoubt.displaced_row'

const allTables = [appliedMarks, conflictTable, displacedTable]

/** Makes the tables where they are not there. */
export async function makeTables(session: Session, signal: AbortSignal): Promise<void> {
  const doing = 'make tables for the marks of changes'
  const [there] = await session.query(
    'select bool_and(to_regclass(name) is not null) as there from unnest($1::text[]) name',
    { signal, values: [allTables], doing },
  )
  if (there?.['there'] === 't') return
  // Of two links that begin at once, one waits for the other.
  await session.query(
    `begin; select pg_advisory_xact_lock(hashtext('redoubt')); create schema if not exists redoubt;
     create table if not exists ${appliedMarks} (link text not null, lane integer not null, epoch bigint not null,
       turn bigint not null default 0, history text, low text, beyond jsonb not null default '[]', primary key (link, lane))
       with (fillfactor = 50);
     create table if not exists ${conflictTable} (id bigint generated always as identity primary key,
       at timestamp with time zone not null default clock_timestamp(), link text not null, table_name text not null,
       change text not null, found text not null, done text not null, source_before jsonb, source_after jsonb, target jsonb);
     create table if not exists ${displacedTable} (link text not null, table_name text not null, target text not null);
     commit`,
    { signal, doing },
  )
}

/**
 * Takes a link over: its marks belong to a new epoch from here on, and sessions of an older one, which may still be alive after
 * their process died, can commit no more.
 */
export async function takeOver(
  session: Session,
  { link, lanes, signal }: { link: string; lanes: number; signal: AbortSignal },
): Promise<bigint> {
  const doing = `take over the marks of link ${link}`
  await session.query("begin; select pg_advisory_xact_lock(hashtext('redoubt'))", { signal, doing })
  const [row] = await session.query(
    `select coalesce(max(epoch), 0) + 1 as epoch from ${appliedMarks} where link = $1`,
    { signal, values: [link], doing },
  )
  const epoch = BigInt(row?.['epoch'] ?? 1)
  // A mark that is being committed is waited for.
  await session.query(`update ${appliedMarks} set epoch = $2 where link = $1`, {
    signal,
    values: [link, String(epoch)],
    doing,
  })
  await session.query(
    `insert into ${appliedMarks} (link, lane, epoch) select $1, lane, $3 from generate_series(0, $2 - 1) lane
     on conflict (link, lane) do nothing`,
    { signal, values: [link, lanes, String(epoch)], doing },
  )
  await session.query('commit', { signal, doing })
  return epoch
}

/** What all lanes of a link say together; undefined when none has said anything. */
export async function readMark(
  session: Session,
  link: string,
  signal: AbortSignal,
): Promise<(Mark & { readonly turn: bigint }) | undefined> {
  const rows = await session.query(
    `select history, low, beyond::text as beyond, turn from ${appliedMarks} where link = $1 and low is not null
     order by turn desc`,
    { signal, values: [link], doing: `read how far link ${link} is` },
  )
  const [last] = rows
  if (!last) return undefined
  const history = last['history'] ?? ''
  // Positions of another history cannot be compared with these: the last lane to commit knows which one holds.
  const mine = rows.filter((row) => row['history'] === history)
  const lows = mine.map((row) => row['low'] ?? '')
  const at = lows.reduce((highest, low) => (low > highest ? low : highest), '')
  const beyond = new Set(mine.flatMap((row) => readBeyond(row['beyond'] ?? '')))
  const above = [...beyond].filter((position) => position > at)
  return { low: { history, at }, beyond: above.toSorted(), turn: BigInt(last['turn'] ?? 0) }
}

function readBeyond(text: string): string[] {
  const list: unknown = JSON.parse(text)
  if (Array.isArray(list) && list.every((one) => typeof one === 'string')) return list
  throw new Fault('corrupt', `read ${appliedMarks}: beyond is ${text.slice(0, 40)}`)
}

/** Writes a lane's mark; the statement fails once another epoch has begun. */
export const writeMark = `update ${appliedMarks} set turn = $1::bigint, history = $2, low = $3, beyond = $4::jsonb,
  epoch = case when epoch = $7::bigint then epoch end where link = $5 and lane = $6::integer`

/** Removes the marks of a link, and all that is there for marks when it was the last; conflicts are the user's to remove. */
export async function removeLink(
  session: Session,
  link: string,
  signal: AbortSignal,
): Promise<void> {
  const doing = `remove the marks of link ${link}`
  const [there] = await session.query('select to_regclass($1) as there', {
    signal,
    values: [appliedMarks],
    doing,
  })
  if (!there?.['there']) return
  for (const table of [appliedMarks, displacedTable]) {
    await session.query(`delete from ${table} where link = $1`, { signal, values: [link], doing })
  }
  await session.query(
    `do $$ begin
       perform pg_advisory_xact_lock(hashtext('redoubt'));
       if to_regclass('${appliedMarks}') is null then return; end if;
       if not exists (select from ${appliedMarks}) then drop table ${appliedMarks}, ${displacedTable}; end if;
       if not exists (select from ${conflictTable}) then drop table ${conflictTable}; end if;
       if not exists (select from pg_class where relnamespace = 'redoubt'::regnamespace) then drop schema redoubt; end if;
     end $$`,
    { signal, doing },
  )
}
