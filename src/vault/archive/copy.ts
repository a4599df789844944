import type { ArchiveWriter } from './archive.ts'
import type { ArchiveReader } from './reader.ts'

/**
 * Brings the archive of one vault up to what another one holds: reads the log there, and appends what is missing here.
 * Blocks that are known already are passed over, so that it can be broken off and called again.
 */
export async function copyLog(
  from: ArchiveReader,
  to: ArchiveWriter,
  options: { readonly signal: AbortSignal },
): Promise<void> {
  for await (const block of from.blocks(to.durable(), options)) await to.append(block, options)
  await to.flush(options)
}
