import { Fault } from '#base/faults'
import type { BaseFacts, BaseOptions, BaseSink, RestoreRequest, RestoreResult } from '#engines'
import type { Source } from './base.ts'

export async function takePhysicalBase(
  _source: Source,
  _sink: BaseSink,
  _options: BaseOptions,
): Promise<BaseFacts> {
  throw new Fault('unsupported', 'take a physical base: not yet')
}

export async function restorePhysical(_request: RestoreRequest): Promise<RestoreResult> {
  throw new Fault('unsupported', 'restore a physical base: not yet')
}
