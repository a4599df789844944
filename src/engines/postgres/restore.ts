import { Fault } from '#base/faults'
import type { RestoreRequest, RestoreResult } from '#engines'

export async function restorePostgres(_request: RestoreRequest): Promise<RestoreResult> {
  throw new Fault('unsupported', 'restore PostgreSQL: not built yet')
}
