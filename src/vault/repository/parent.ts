import { parseTimeNs } from './go-text.ts'
import type { Snapshot } from './repository.ts'

/**
 * The snapshot to compare with: the latest one, not later than the backup itself, of the same host and the same
 * set of paths.
 */
export function chooseParent(
  snapshots: readonly Snapshot[],
  facts: Pick<Snapshot, 'paths' | 'hostname' | 'time'>,
): Snapshot | undefined {
  const setOf = (paths: readonly string[]) => JSON.stringify([...new Set(paths)].sort())
  const wanted = setOf(facts.paths)
  const before = parseTimeNs(facts.time)
  let chosen: { readonly snapshot: Snapshot; readonly timeNs: bigint } | undefined
  for (const snapshot of snapshots) {
    const timeNs = parseTimeNs(snapshot.time)
    if (timeNs === undefined || (before !== undefined && timeNs > before)) continue
    if (snapshot.hostname !== facts.hostname || setOf(snapshot.paths) !== wanted) continue
    if (!chosen || timeNs >= chosen.timeNs) chosen = { snapshot, timeNs }
  }
  return chosen?.snapshot
}
