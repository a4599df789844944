import { Fault } from '#base/faults'
import type { Position } from '#change'
import type { Relation } from '#change/batch'
import type { ObjectName } from '#change/schema'

/** Between which positions the rows of a table were copied: the same, unless readers of the copy were lost. */
export type CopiedAt = {
  readonly name: ObjectName
  readonly first: Position
  readonly last: Position
}

/**
 * What becomes of a change, by where its table was copied. `drop`: its rows hold it already. `converge`: some of its rows do.
 * `write`: none does.
 */
export type Verdict = 'drop' | 'converge' | 'write'

/** Tells which changes a copy has brought already. */
export class Since {
  readonly #tables: ReadonlyMap<string, CopiedAt>
  readonly #known = new WeakMap<Relation, CopiedAt | false>()
  /** Nothing before it is missing anywhere. */
  readonly start: Position
  /** Behind it every change is new to every table. */
  readonly last: Position

  /** `begun` is where the first reader of the copy was. */
  constructor(tables: readonly CopiedAt[], begun: Position) {
    const [one = begun, ...others] = tables.flatMap(({ first, last }) => [first, last])
    const other = others.find(({ history }) => history !== one.history)
    if (other) {
      throw new Fault(
        'source-changed',
        `read changes: the copy was made at ${one.at} of ${one.history} and at ${other.at} of ${other.history}`,
        { hint: 'The source became another between them. Begin the copy anew.' },
      )
    }
    this.#tables = new Map(tables.map((table) => [JSON.stringify(table.name), table]))
    const sorted = [one, ...others].toSorted((a, b) => (a.at < b.at ? -1 : 1))
    this.start = sorted.at(0) ?? begun
    this.last = sorted.at(-1) ?? begun
  }

  /** Whether what comes at a position, or behind it, may meet tables that hold it already. */
  isMixed({ history, at }: Position): boolean {
    return history === this.last.history && at < this.last.at
  }

  /** Whether every table holds what comes at a position. */
  isCopied({ history, at }: Position): boolean {
    return history === this.start.history && at <= this.start.at
  }

  /** Without a position it is behind all of the copy. */
  judge(relation: Relation, position: Position | undefined): Verdict {
    if (position === undefined) return 'write'
    const { history, at } = position
    if (history !== this.last.history || at > this.last.at) return 'write'
    const table = this.#find(relation)
    if (!table) return 'write'
    if (at <= table.first.at) return 'drop'
    return at <= table.last.at ? 'converge' : 'write'
  }

  #find(relation: Relation): CopiedAt | undefined {
    const known = this.#known.get(relation)
    if (known !== undefined) return known || undefined
    const found = this.#tables.get(JSON.stringify(relation.name))
    this.#known.set(relation, found ?? false)
    return found
  }
}
