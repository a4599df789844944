import type { ColumnLoad } from './catalog.ts'
import type { Flavor } from './flavor.ts'
import type { StoredFile } from './layout.ts'

const digits = 16

/**
 * The order in which a base stores a table's columns: those that no digest covers last. These are MySQL's JSON: a decimal
 * in it is read back as a double, so that what was loaded rightly may print differently.
 */
export function inDigestOrder<Kind extends { readonly load: ColumnLoad }>(
  columns: readonly Kind[],
  flavor: Flavor,
): Kind[] {
  const covered = (column: Kind) => isDigested(column, flavor)
  return [...columns.filter(covered), ...columns.filter((column) => !covered(column))]
}

/** How many columns of a row, counted from the first that is stored, a digest covers. */
export function digestedCount(
  columns: readonly { readonly load: ColumnLoad }[],
  flavor: Flavor,
): number {
  return columns.filter((column) => isDigested(column, flavor)).length
}

function isDigested({ load }: { readonly load: ColumnLoad }, flavor: Flavor): boolean {
  return flavor.family === 'mariadb' || load !== 'text'
}

export function formatDigest(digest: bigint): string {
  return digest.toString(16).padStart(digits, '0')
}

/** What the files of a table come to together; no digest where one of them has none. */
export function sumOf(files: readonly StoredFile[]): { rows: number; digest: string | undefined } {
  const rows = files.reduce((sum, file) => sum + file.rows, 0)
  const all = files.reduce<bigint | undefined>(
    (sum, { digest }) =>
      sum === undefined || digest === undefined ? undefined : sum + BigInt(`0x${digest}`),
    0n,
  )
  return { rows, digest: all === undefined ? undefined : formatDigest(BigInt.asUintN(64, all)) }
}
