import type { ArchiveWriter } from './archive.ts'
import type { ArchiveReader } from './reader.ts'

/**
 * Brings the archive of one vault up to what another one holds: reads the log there, and appends what is missing here,
 * holes shown as the holes that they are. What is known already is passed over, so that it can be broken off and
 * called again.
 */
export async function copyLog(
  from: ArchiveReader,
  to: ArchiveWriter,
  options: { readonly signal: AbortSignal },
): Promise<void> {
  for (let at = to.durable() ?? from.beginning(); at; ) {
    for await (const block of from.blocks(at, options)) await to.append(block, options)
    await to.flush(options)
    at = from.beginning(at)
    if (at) to.allowGap()
  }
}
