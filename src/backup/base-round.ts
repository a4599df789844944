import { type Fault, isFault } from '#base/faults'
import type { Log } from '#base/log'
import type { BaseRecord, Vault } from '#vault'

type Record = Omit<BaseRecord, 'recordedMs'>

export type BaseRoundParts = {
  readonly vaults: readonly Vault[]
  /** Takes a base from the source. */
  readonly take: (vault: Vault) => Promise<Record>
  /** Brings a base that one vault has to another. */
  readonly copy: (from: Vault, to: Vault, base: Record) => Promise<void>
  readonly log: Log
}

/**
 * One base for several vaults: read from the source once, and copied to the others. A vault that fails does not keep the
 * others from theirs; run again, the round goes on with those that are left.
 */
export class BaseRound {
  readonly #parts: BaseRoundParts
  readonly #left: Set<Vault>
  #taken: { readonly vault: Vault; readonly base: Record } | undefined

  constructor(parts: BaseRoundParts) {
    this.#parts = parts
    this.#left = new Set(parts.vaults)
  }

  async run(): Promise<void> {
    let failure: Fault | undefined
    for (const vault of this.#left) {
      try {
        await this.#serve(vault)
        this.#left.delete(vault)
      } catch (error) {
        if (!isFault(error) || error.recovery === 'stop') throw error
        failure ??= error
      }
    }
    if (failure) throw failure
  }

  async #serve(vault: Vault): Promise<void> {
    const taken = this.#taken
    if (taken) {
      try {
        return await this.#parts.copy(taken.vault, vault, taken.base)
      } catch (error) {
        // Whichever of the two failed: one that can be written to gets a base of its own.
        if (!isFault(error)) throw error
        this.#parts.log.warn(
          `copying base ${taken.base.name} failed, takes another: ${error.message}`,
        )
      }
    }
    const base = await this.#parts.take(vault)
    this.#taken ??= { vault, base }
  }
}
