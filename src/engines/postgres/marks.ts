import type { Session } from './connection.ts'

/** Where the chunks that are on a target are marked, each in the transaction that brought its rows. */
export const chunkMarks = 'redoubt.copied_chunk'

/** Where the objects that were made are marked, each with a digest of the statements that made it. */
export const madeMarks = 'redoubt.made_object'

/** Makes the tables of the marks where they are not there. */
export async function makeMarks(session: Session, signal: AbortSignal): Promise<void> {
  const doing = 'make tables for the marks of the copy'
  const [there] = await session.query(
    'select to_regclass($1) is not null and to_regclass($2) is not null as there',
    { signal, values: [chunkMarks, madeMarks], doing },
  )
  if (there?.['there'] === 't') return
  // Of two links that begin at once, one waits for the other.
  await session.query(
    `begin; select pg_advisory_xact_lock(hashtext('redoubt')); create schema if not exists redoubt;
     create table if not exists ${chunkMarks} (link text not null, table_index integer not null,
       chunk_index integer not null, run integer not null, rows bigint not null, primary key (link, table_index, chunk_index));
     create table if not exists ${madeMarks} (id text primary key, digest text not null); commit`,
    { signal, doing },
  )
}

/** Removes the marks of a link, and all that is there for marks when it was the last. */
export async function removeMarks(
  session: Session,
  link: string,
  signal: AbortSignal,
): Promise<void> {
  const doing = 'remove the marks of the copy'
  await session.query(`delete from ${chunkMarks} where link = $1`, {
    signal,
    values: [link],
    doing,
  })
  await session.query(
    `do $$ begin
       perform pg_advisory_xact_lock(hashtext('redoubt'));
       if not exists (select from ${chunkMarks}) then
         drop table ${chunkMarks}, ${madeMarks};
         if not exists (select from pg_class where relnamespace = 'redoubt'::regnamespace) then drop schema redoubt; end if;
       end if;
     end $$`,
    { signal, doing },
  )
}
