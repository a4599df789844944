import { createHash } from 'node:crypto'

/** A share of all rows, chosen by chance; the same seed chooses the same again. */
export type Sample = { readonly share: number; readonly seed: string }

/** Whether one slice of a table is among them: each is, with the same chance, whatever is in it and whatever the others are. */
export function isChosen(sample: Sample, table: string, slice: number): boolean {
  const sum = createHash('sha256').update(`${sample.seed}\n${table}\n${slice}`).digest()
  return sum.readUIntBE(0, 6) / 2 ** 48 < sample.share
}

const sliceRows = 1000
const slicesMin = 200
const slicesMax = 100_000

/** Rows of a slice: a table has at least some hundred slices, so that a share of it is no matter of luck. */
export function rowsOfSlice(rowsEstimate: number): number {
  return Math.max(1, Math.min(sliceRows, Math.floor(rowsEstimate / slicesMin)))
}

/**
 * Cuts whole numbers into slices of equal width; the first and the last are open. Where values stand close together a slice
 * holds more rows, but each row has the same chance to be chosen.
 */
export function cutSlices(
  edges: { readonly first: bigint; readonly last: bigint },
  rowsEstimate: number,
): readonly bigint[] {
  const span = edges.last - edges.first + 1n
  const wanted = Math.ceil(rowsEstimate / rowsOfSlice(rowsEstimate))
  const count = BigInt(Math.min(slicesMax, Math.max(1, wanted)))
  const slices = count > span ? span : count
  const borders: bigint[] = []
  for (let at = 1n; at < slices; at += 1n) borders.push(edges.first + (span * at) / slices)
  return borders
}
