import { isFault } from '#base/faults'
import type { LogFinding, Snapshot, Vault } from '#vault'
import { sourceOfBase } from './unnamed-bases.ts'

/**
 * Finds sources of which bases or log are stored, and which no record of the catalog names: neither windows nor restores
 * know them. `snapshots` were listed before the call: whoever writes of a source records it first.
 */
export async function findUnnamedSources(
  vault: Pick<Vault, 'archive' | 'catalog'>,
  snapshots: readonly Snapshot[],
  options: { readonly signal: AbortSignal },
): Promise<LogFinding[]> {
  const withLog = await vault.archive.sources(options)
  const withBases = new Set(snapshots.flatMap((snapshot) => sourceOfBase(snapshot) ?? []))
  const known = await namesOf(vault, options)
  if (!known) return []
  const stored: string[] = []
  for (const name of new Set([...withBases, ...withLog])) {
    if (known.has(name)) continue
    if (withBases.has(name) || (await hasLog(vault, name, options))) stored.push(name)
  }
  if (stored.length === 0) return []
  // Once more: one that began meanwhile had its record before its log.
  const now = await namesOf(vault, options)
  return stored
    .filter((name) => now && !now.has(name))
    .toSorted()
    .map((name) => describe(name, withBases.has(name)))
}

/** An archiver that waits for its source has a lease already, and nothing more. */
async function hasLog(
  { archive }: Pick<Vault, 'archive'>,
  source: string,
  options: { readonly signal: AbortSignal },
): Promise<boolean> {
  try {
    return (await archive.spans(source, options)).length > 0
  } catch (error) {
    if (!isFault(error) || error.recovery === 'retry') throw error
    // Log that cannot be read is log, and told of by its own check.
    return true
  }
}

/** Undefined where the records cannot all be read, which is a finding of its own. */
async function namesOf(
  { catalog }: Pick<Vault, 'catalog'>,
  options: { readonly signal: AbortSignal },
): Promise<Set<string> | undefined> {
  try {
    return new Set((await catalog.sources(options)).map(({ name }) => name))
  } catch (error) {
    if (!isFault(error) || error.recovery === 'retry') throw error
    return undefined
  }
}

function describe(source: string, hasBases: boolean): LogFinding {
  const what = hasBases ? 'bases' : 'log'
  return {
    severity: hasBases ? 'damaged' : 'warns',
    code: 'unnamed',
    object: undefined,
    said:
      `the vault holds ${what} of ${source}, but no record of the catalog says what ${source} is, so that neither windows nor restores ` +
      'know it: protect or back up that server under this name again, or copy the record back from another vault (vault copy)',
  }
}
