import { Fault } from '#base/faults'
import type { EngineKind } from '#engines'

export const provePostgres: EngineKind['prove'] = async () => {
  throw new Fault('unsupported', 'prove PostgreSQL: not built yet')
}
