import { Fault } from '#base/faults'
import type { BaseFacts } from '#engines'
import { type Flavor, parseFlavor } from './flavor.ts'
import type { StoredTable } from './layout.ts'

const versioned = /\b(?:WITH|ADD)\s+SYSTEM\s+VERSIONING\b/i
const definition = /^\s*(?:\/\*.*?\*\/\s*)*(?:create|alter)\b/is
const headBytes = 1024

/** Whether a statement of the log gives a table a history. */
export function makesVersioned(sql: Buffer): boolean {
  return definition.test(sql.toString('latin1', 0, headBytes)) && versioned.test(sql.toString())
}

/** The server that a base is of. */
export function sourceOf(base: BaseFacts): Flavor {
  return parseFlavor(base.flavor === 'mariadb' ? `${base.version}-MariaDB` : base.version)
}

/** Refuses a target of the other family, or of an older MySQL. */
export function checkFamily(base: BaseFacts, target: Flavor): void {
  const source = sourceOf(base)
  const older = Math.floor(target.number / 100) < Math.floor(source.number / 100)
  if (target.family === source.family && !(older && target.family === 'mysql')) return
  throw new Fault(
    'unsupported',
    `restore a base of ${base.flavor} ${base.version}: the target is ${target.family} ${target.version}`,
    { hint: 'Restore into a server of the same family and of the same or a newer version.' },
  )
}

/** From this MariaDB on a row that is still there ends at a later moment. */
const endsMovedSince = 110_500

/** Whether the two tell the end of rows that still hold differently. */
export function endsMoved(source: Flavor, target: Flavor): boolean {
  const isLater = ({ number }: Flavor) => number >= endsMovedSince
  return source.family === 'mariadb' && isLater(source) !== isLater(target)
}

/**
 * Refuses to replay row events of MariaDB before 11.5 into a later one where tables keep their history: a row that is
 * still there ends in 2038 in such an event, and that is the past for the later server, so that the row would be gone.
 * A replica of that server translates it; a BINLOG statement is taken as it is.
 */
export function checkRowEnds(
  source: Flavor,
  target: Flavor,
  found: { readonly tables: readonly StoredTable[]; readonly inLog: boolean },
): void {
  if (source.number >= endsMovedSince || !endsMoved(source, target)) return
  const table = found.tables.find(({ create }) => versioned.test(create))
  if (!table && !found.inLog) return
  const which = table ? `${table.database}.${table.name}` : 'a table that the log makes'
  throw new Fault(
    'unsupported',
    `restore with the log of MariaDB ${source.version} into ${target.version}: ${which} is system-versioned, and its present rows would become history`,
    {
      hint: 'Restore into a new directory with the programs of the older version (--to DIRECTORY --server-bin) and upgrade that server, or restore a base alone (--at NAME).',
    },
  )
}
