import { Reader } from '#base/bytes'
import { Fault } from '#base/faults'
import { quoteName, quotePlain } from '../sql.ts'
import type { EventHeader, QueryEvent } from './event.ts'

/**
 * The session settings that a statement was run under, as the binary log keeps them beside it.
 * https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Query__event.html
 */
export type StatementSettings = {
  /** Assignments in a fixed order, ready for `SET`. */
  readonly assignments: readonly string[]
}

const flagSqlAutoIsNull = 1 << 14
const flagNoForeignKeys = 1 << 26
const flagRelaxedUnique = 1 << 27
const flagIfExists = 1 << 28

/** Reads the status variables of a query event. An unknown one ends the reading: its length cannot be known. */
export function statementSettings(
  header: EventHeader,
  query: QueryEvent,
  family: 'mysql' | 'mariadb',
  collations: ReadonlyMap<number, Collation>,
): StatementSettings {
  const reader = new Reader(query.status, 'status of a statement')
  const set = new Map<string, string>()
  let microseconds = 0
  set.set('@@session.pseudo_thread_id', String(query.threadId))
  while (reader.left > 0) {
    const code = reader.u8()
    if (code === 13 || code === 128) microseconds = reader.u24le()
    else if (!readVariable(code, reader, { set, family, collations })) break
  }
  const time = `${header.timestamp}.${String(microseconds).padStart(6, '0')}`
  set.set('timestamp', microseconds === 0 ? String(header.timestamp) : time)
  return { assignments: [...set].map(([name, value]) => `${name} = ${value}`) }
}

/** One variable; false for one that is not known. */
function readVariable(
  code: number,
  reader: Reader,
  into: {
    readonly set: Map<string, string>
    readonly family: 'mysql' | 'mariadb'
    readonly collations: ReadonlyMap<number, Collation>
  },
): boolean {
  const { set, family, collations } = into
  const session = (name: string, value: string | number | bigint) =>
    void set.set(`@@session.${name}`, String(value))
  switch (code) {
    case 0:
      readFlags(reader.u32le(), session, family)
      break
    case 1:
      session('sql_mode', reader.u64le())
      break
    case 2:
      reader.skip(reader.u8() + 1)
      break
    case 3:
      session('auto_increment_increment', reader.u16le())
      session('auto_increment_offset', reader.u16le())
      break
    case 4:
      session('character_set_client', charsetOf(reader.u16le(), collations))
      session('collation_connection', reader.u16le())
      session('collation_server', reader.u16le())
      break
    case 5:
      session('time_zone', quotePlain(reader.text(reader.u8())))
      break
    case 6:
      reader.skip(reader.u8())
      break
    case 7:
      session('lc_time_names', reader.u16le())
      break
    case 8:
      session('collation_database', reader.u16le())
      break
    case 9:
      reader.skip(8)
      break
    case 10:
      reader.skip(4)
      break
    case 11:
      reader.skip(reader.u8())
      reader.skip(reader.u8())
      break
    case 12:
      skipDatabases(reader)
      break
    case 16:
      session('explicit_defaults_for_timestamp', reader.u8())
      break
    case 17:
      reader.skip(8)
      break
    case 18:
      session('default_collation_for_utf8mb4', reader.u16le())
      break
    case 19:
      session('sql_require_primary_key', reader.u8())
      break
    case 20:
      session('default_table_encryption', reader.u8())
      break
    case 129:
      reader.skip(8)
      break
    case 130:
      reader.skip(1)
      break
    default:
      return false
  }
  return true
}

/** The client's character set came as one of its collations; a server takes the number of the default one only. */
function charsetOf(id: number, collations: ReadonlyMap<number, Collation>): string {
  return collations.get(id)?.charset || String(id)
}

function readFlags(
  flags: number,
  session: (name: string, value: number) => void,
  family: 'mysql' | 'mariadb',
): void {
  const on = (flag: number) => ((flags & flag) !== 0 ? 1 : 0)
  session('foreign_key_checks', 1 - on(flagNoForeignKeys))
  session('unique_checks', 1 - on(flagRelaxedUnique))
  session('sql_auto_is_null', on(flagSqlAutoIsNull))
  // Autocommit, a flag as well, is left alone: transactions are opened and ended by their own events.
  if (family === 'mariadb') session('sql_if_exists', on(flagIfExists))
}

/** Names of the databases that a statement touched: up to 16, 254 says that there were more. */
function skipDatabases(reader: Reader): void {
  const count = reader.u8()
  if (count === 254) return
  for (let index = 0; index < count; index++) reader.cstring()
}

/** The statement that sets a user variable again. */
export function userVariable(body: Buffer, collations: ReadonlyMap<number, Collation>): string {
  const reader = new Reader(body, 'user variable event')
  const name = `@${quoteName(reader.text(reader.u32le()))}`
  if (reader.u8() !== 0) return `SET ${name} := NULL`
  const type = reader.u8()
  const charset = reader.u32le()
  const value = reader.view(reader.u32le())
  const unsigned = reader.left > 0 && (reader.u8() & 1) !== 0
  switch (type) {
    case 0:
      return `SET ${name} := ${text(value, charset, collations)}`
    case 1:
      return `SET ${name} := ${formatDouble(value.readDoubleLE())}`
    case 2:
      return `SET ${name} := ${unsigned ? value.readBigUInt64LE() : value.readBigInt64LE()}`
    case 4:
      return `SET ${name} := ${decodeDecimal(value)}`
    default:
      throw new Fault('unsupported', `replay user variable ${name}: type ${type}`)
  }
}

export type Collation = { readonly name: string; readonly charset: string }

function text(value: Buffer, id: number, collations: ReadonlyMap<number, Collation>): string {
  const collation = collations.get(id)
  if (!collation) {
    throw new Fault('unsupported', `replay user variable: the target has no collation ${id}`)
  }
  const hex = value.length === 0 ? "''" : `X'${value.toString('hex')}'`
  return `_${collation.charset} ${hex} COLLATE ${collation.name}`
}

function formatDouble(value: number): string {
  return value.toExponential()
}

const digitBytes = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4]

/** The packed decimal of the binary log: precision, scale, then digits by nines, high bytes first, sign in the top bit. */
export function decodeDecimal(bytes: Buffer): string {
  const [precision = 0, scale = 0] = bytes
  const packed = Buffer.from(bytes.subarray(2))
  const negative = ((packed[0] ?? 0) & 0x80) === 0
  packed[0] = (packed[0] ?? 0) ^ 0x80
  if (negative) for (let at = 0; at < packed.length; at++) packed[at] = ~(packed[at] ?? 0)
  let at = 0
  const take = (digits: number): string => {
    const size = digitBytes[digits] ?? 0
    const value = size === 0 ? 0 : packed.readUIntBE(at, size)
    at += size
    return size === 0 ? '' : String(value).padStart(digits, '0')
  }
  const whole = precision - scale
  let left = take(whole % 9)
  for (let nines = Math.floor(whole / 9); nines > 0; nines--) left += take(9)
  let right = ''
  for (let nines = Math.floor(scale / 9); nines > 0; nines--) right += take(9)
  right += take(scale % 9)
  const digits = left.replace(/^0+(?=\d)/, '') || '0'
  return `${negative ? '-' : ''}${digits}${right === '' ? '' : `.${right}`}`
}
