import { isFault } from '#base/faults'
import type { LogFinding, Snapshot, Vault } from '#vault'
import { baseTag } from './files.ts'

const sourceTag = 'source='

/**
 * Finds bases that no record of the catalog names: restores do not know them. Their record is gone, or their backup was
 * killed just before it wrote one. `snapshots` were listed before the call. Says nothing while somebody holds a lock:
 * whoever takes or copies a base holds one until its record stands, and would be taken for such a case.
 */
export async function findUnnamedBases(
  vault: Pick<Vault, 'repository' | 'catalog'>,
  snapshots: readonly Snapshot[],
  options: { readonly signal: AbortSignal },
): Promise<LogFinding[]> {
  const bases = snapshots.filter((one) => sourceOfBase(one) !== undefined)
  const held = Map.groupBy(bases, (one) => sourceOfBase(one) ?? '')
  if (held.size === 0) return []
  // Before the records are read: a base whose lock is gone by now has its record.
  if ((await vault.repository.listFiles('locks', options)).length > 0) return []
  const findings: LogFinding[] = []
  for (const [source, ofSource] of held) {
    const named = await namesOf(vault, source, options.signal)
    if (!named) continue
    const unnamed = ofSource.filter(({ id }) => !named.has(id))
    findings.push(...unnamed.map((one) => describe(one, source, named.size > 0)))
  }
  return findings
}

/** The source that a snapshot is a base of; undefined for one that is none. */
export function sourceOfBase({ tags = [] }: Snapshot): string | undefined {
  if (!tags.includes(baseTag)) return undefined
  return tags.find((tag) => tag.startsWith(sourceTag))?.slice(sourceTag.length)
}

/** Snapshots that the source's records name; undefined where these cannot all be read, which is a finding of its own. */
async function namesOf(
  { catalog }: Pick<Vault, 'catalog'>,
  source: string,
  signal: AbortSignal,
): Promise<Set<string> | undefined> {
  try {
    return new Set((await catalog.bases(source, { signal })).map(({ snapshot }) => snapshot))
  } catch (error) {
    if (!isFault(error) || error.recovery === 'retry') throw error
    return undefined
  }
}

function describe({ id, time }: Snapshot, source: string, hasOthers: boolean): LogFinding {
  const only = hasOthers ? '' : `; no other base of ${source} is known`
  return {
    severity: hasOthers ? 'warns' : 'damaged',
    code: 'unnamed',
    object: `snapshots/${id}`,
    said:
      `a base of ${source} of ${time} that no record of the catalog names, so that no restore finds it${only}: ` +
      'copy the record back from another vault (vault copy), or take a new base and forget this snapshot',
  }
}
