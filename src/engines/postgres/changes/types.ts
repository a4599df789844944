import type { Session } from '../connection.ts'

/** The types that every server of this version has: the log names them by these numbers alone. */
export async function readTypeNames(
  session: Session,
  signal: AbortSignal,
): Promise<ReadonlyMap<number, string>> {
  const rows = await session.query(
    'select oid, format_type(oid, null) as name from pg_type where oid < 16384',
    { signal, doing: 'read the names of the types' },
  )
  return new Map(rows.map((row) => [Number(row['oid']), row['name'] ?? '']))
}

const headBytes = 4

/** A type with its modifier, as the catalog's own `format_type` writes it. */
export function typeText(name: string, modifier: number): string {
  if (modifier < 0) return name
  const base = name.replace(/(\[\])+$/, '')
  const text = modified(base, modifier)
  return text === undefined ? name : text + name.slice(base.length)
}

// What a modifier means is each type's own business: numeric.c, varchar.c, timestamp.c, varbit.c of the server.
function modified(base: string, modifier: number): string | undefined {
  switch (base) {
    case 'numeric': {
      const packed = modifier - headBytes
      // The scale has eleven bits and, since 15, a sign.
      const scale = ((packed & 0x7ff) ^ 1024) - 1024
      return `numeric(${(packed >> 16) & 0xffff},${scale})`
    }
    case 'character varying':
    case 'character':
      return `${base}(${modifier - headBytes})`
    case 'bpchar':
      return `character(${modifier - headBytes})`
    case 'bit':
    case 'bit varying':
      return `${base}(${modifier})`
    default:
      return withPrecision(base, modifier)
  }
}

function withPrecision(base: string, modifier: number): string | undefined {
  const match = /^(time|timestamp)( with(?:out)? time zone)$/.exec(base)
  return match ? `${match[1]}(${modifier})${match[2]}` : undefined
}
