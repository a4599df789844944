import type { Position } from '#change'
import type { Vault } from '#vault'
import { type ForgetOptions, type Forgotten, forgetSnapshots } from '#vault/repository/forget'

export type RetainRequest = ForgetOptions & { readonly vault: Vault }

export type Retained = Forgotten & {
  /** Objects of archived log that no remaining base needs, removed source by source. */
  readonly log: readonly {
    readonly source: string
    readonly before: Position
    readonly objects: number
  }[]
}

/**
 * Forgets snapshots, bases of databases among them, then removes the archived log from before each source's oldest
 * remaining base: what is left restores without a hole. A source whose last base went keeps its log.
 */
export async function retain(request: RetainRequest): Promise<Retained> {
  const { vault, signal, dryRun = false } = request
  const forgotten = await forgetSnapshots(vault.repository, request)
  const log: Retained['log'][number][] = []
  if (dryRun) return { ...forgotten, log }
  for (const { name: source } of await vault.catalog.sources({ signal })) {
    const bases = await vault.catalog.bases(source, { signal })
    const oldest = bases.toSorted((a, b) => (a.consistentUs < b.consistentUs ? -1 : 1))[0]
    if (!oldest) continue
    const objects = await vault.archive.trim(source, oldest.first, { signal })
    log.push({ source, before: oldest.first, objects })
  }
  return { ...forgotten, log }
}
