import type { LogBeat, Position } from '#change'
import type { Journal } from '#journal'
import type { ArchiveWriter, Vault } from '#vault'

export type ShipperOptions = {
  readonly vault: Vault
  readonly source: string
  readonly journal: Journal
  readonly signal: AbortSignal
  /** Called when more became durable in this vault. */
  readonly onDurable: () => void
}

/** Carries one source's log from the journal to one vault. */
export interface Shipper {
  /** Ships until the signal aborts or the vault fails; can be run again and goes on where the vault's archive ends. */
  run(signal: AbortSignal): Promise<void>
  durable(): Position | undefined
  beat(beat: LogBeat): void
  recordGap(said: string, signal: AbortSignal): Promise<void>
  status(): { readonly url: string; readonly durable: string | undefined; readonly said: string }
}
