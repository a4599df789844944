import { readWindows, type WindowReport } from '#backup/window'
import { Fault } from '#base/faults'
import { openVaultAt, type Surroundings, type VaultAddress } from './open.ts'

export type { WindowReport } from '#backup/window'

/** What can be restored from a vault, source by source. */
export async function listWindows(
  address: VaultAddress,
  source: string | undefined,
  around: Surroundings,
): Promise<WindowReport[]> {
  await using vault = await openVaultAt(address, around)
  const reports = await readWindows({ vault, source, nowMs: Date.now(), signal: around.signal })
  if (source !== undefined && reports.length === 0) {
    throw new Fault('missing', `read the windows: the vault holds no source '${source}'`)
  }
  return reports
}
