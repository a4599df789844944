import type { ChangeReader, ChangeSource, OpenChanges } from '#change/batch'
import { type Address, openSession } from '../connection.ts'
import type { ServerFacts } from '../facts.ts'
import { slotName } from '../slot.ts'
import { fromAt, parseHistory } from '../lsn.ts'
import { checkSlot, dropLogicalSlot } from './logical-slot.ts'
import { dropPublication } from './publication.ts'
import { otherSystem, PostgresChangeReader } from './reader.ts'

/** What changes in a database, by logical decoding: `pgoutput` through the slot that a copy with `follow` made. */
export class PostgresChanges implements ChangeSource {
  readonly #address: Address
  readonly #facts: ServerFacts

  constructor(address: Address, facts: ServerFacts) {
    this.#address = address
    this.#facts = facts
  }

  async openChanges(options: OpenChanges): Promise<ChangeReader> {
    const { history, at } = options.after
    const { systemId } = parseHistory(history)
    if (systemId !== this.#facts.systemId) throw otherSystem(systemId, this.#facts.systemId)
    await using session = await openSession(this.#address, options)
    const slot = slotName(options.name)
    const { signal } = options
    await checkSlot(session, { slot, after: fromAt(at), address: this.#address, signal })
    return new PostgresChangeReader(this.#address, this.#facts, options)
  }

  async endChanges({
    name,
    signal,
  }: {
    readonly name: string
    readonly signal: AbortSignal
  }): Promise<void> {
    await using session = await openSession(this.#address, { signal })
    await dropLogicalSlot(session, slotName(name), signal)
    await dropPublication(session, name, signal)
  }
}
