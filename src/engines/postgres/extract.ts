import { Fault } from '#base/faults'
import type { RestoreRequest, RestoreResult } from '#engines'

export async function restoreOnly(_request: RestoreRequest): Promise<RestoreResult> {
  throw new Fault('unsupported', 'restore a part: not built yet')
}
