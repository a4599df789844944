import { isId } from './blob-id.ts'
import { packKey } from './pack.ts'
import type { Repository } from './repository.ts'

/** All stored packs with their sizes. What does not bear the name of a pack is passed over. */
export async function listPacks(
  { storage }: Pick<Repository, 'storage'>,
  { signal }: { readonly signal: AbortSignal },
): Promise<Map<string, number>> {
  const packs = new Map<string, number>()
  for await (const { key, sizeBytes } of storage.list('data/', { signal })) {
    const id = key.slice(key.lastIndexOf('/') + 1)
    if (isId(id) && packKey(id) === key) packs.set(id, sizeBytes)
  }
  return packs
}
