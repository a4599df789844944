import { type Fault, isFault } from '#base/faults'
import type { Log } from '#base/log'
import type { BaseRecord, Vault } from '#vault'

type Base = Omit<BaseRecord, 'recordedMs'>

export type TakenBase = { readonly vault: Vault; readonly base: Base }

export type BaseRoundParts = {
  /** Those that are due. */
  readonly vaults: readonly Vault[]
  /** The base that was taken last, whichever vault it was taken into. */
  readonly last?: TakenBase | undefined
  /** Whether a vault that gets this base can restore to now. */
  readonly opens: (vault: Vault, base: Base) => Promise<boolean>
  /** Takes a base from the source. */
  readonly take: (vault: Vault) => Promise<Base>
  /** Brings a base that one vault has to another. */
  readonly copy: (from: Vault, to: Vault, base: Base) => Promise<void>
  readonly log: Log
}

export type BaseRoundResult = {
  readonly taken: TakenBase | undefined
  /** Vaults that got no base, for a reason that may pass. */
  readonly failed: ReadonlyMap<Vault, Fault>
}

/**
 * One base for several vaults: read from the source once, and copied to the others. A vault that fails does not keep the
 * others from theirs. Throws what is for the operator.
 */
export async function runBaseRound(parts: BaseRoundParts): Promise<BaseRoundResult> {
  const failed = new Map<Vault, Fault>()
  let taken: TakenBase | undefined
  for (const vault of parts.vaults) {
    try {
      taken = await serve(vault, taken ?? notOf(vault, parts.last), parts)
    } catch (error) {
      if (!isFault(error) || error.recovery === 'stop') throw error
      failed.set(vault, error)
    }
  }
  return { taken, failed }
}

/** The vault that has no use for its own base any more gets another. */
function notOf(vault: Vault, last: TakenBase | undefined): TakenBase | undefined {
  return last?.vault === vault ? undefined : last
}

async function serve(
  vault: Vault,
  known: TakenBase | undefined,
  { opens, take, copy, log }: BaseRoundParts,
): Promise<TakenBase> {
  if (known && (await opens(vault, known.base))) {
    try {
      await copy(known.vault, vault, known.base)
      return known
    } catch (error) {
      // Whichever of the two failed: one that can be written to gets a base of its own.
      if (!isFault(error)) throw error
      log.warn(`copying base ${known.base.name} failed, takes another: ${error.message}`)
    }
  }
  return { vault, base: await take(vault) }
}
