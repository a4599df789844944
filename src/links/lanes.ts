import { assert } from '#base/faults'
import type { Position } from '#change'
import type { Mark } from '#change/apply'

/** What was read and is not on the target yet: marks list transactions of it, so that it bounds them too. */
const windowTransactionsMax = 1024
const windowBytesMax = 32 * 2 ** 20
/** What is committed together at most. */
const groupTransactionsMax = 256
const groupBytesMax = 4 * 2 ** 20

/** A whole transaction on its way to the target. */
export type Entry<T> = {
  readonly position: Position
  readonly timeUs: bigint
  /** Undefined when there is nothing to write: it only moves the mark. */
  readonly work: T | undefined
  /** Hashes of the keys that it touches. */
  readonly keys: Uint32Array
  readonly sizeBytes: number
}

/** Transactions for one commit, in the source's order. */
export type Group<T> = {
  readonly entries: readonly Entry<T>[]
  /** One transaction, taken when all before it were on the target: what does not fit now never will. */
  readonly sole: boolean
}

type Node<T> = { -readonly [Name in keyof Entry<T>]: Entry<T>[Name] } & {
  order: number
  /** Nothing was to be written for it. */
  readonly empty: boolean
  /** Those before it that share a key and are not on the target yet. */
  missing: number
  readonly dependents: Node<T>[]
  state: 'waits' | 'ready' | 'busy' | 'done'
  /** It did not fit once: it goes when all before it are there. */
  alone: boolean
}

/**
 * Hands transactions to lanes that commit in any order: two that share a key keep theirs, since the later one waits for the
 * earlier one's commit, or goes into the same. Knows how far the target is by that, and what a lane's mark has to say.
 */
export class Lanes<T> {
  /** In the source's order, from the first that is not done. */
  readonly #nodes: Node<T>[] = []
  #head = 0
  #bytes = 0
  #order = 0
  /** The last transaction that touches a key and is not done. */
  readonly #holders = new Map<number, Node<T>>()
  #ready: Node<T>[] = []
  /** What each lane committed behind `low`. */
  readonly #own: Node<T>[][]
  /** What was on the target behind `low` when this began. */
  #inherited: readonly string[]
  #low: Position
  #lowOrder = 0
  #timeUs: bigint | undefined

  constructor(lanes: number, mark: Mark) {
    assert(lanes > 0, 'there is a lane')
    this.#own = Array.from({ length: lanes }, () => [])
    this.#low = mark.low
    this.#inherited = mark.beyond
  }

  /** Everything up to here is on the target. */
  get low(): Position {
    return this.#low
  }

  get lowOrder(): number {
    return this.#lowOrder
  }

  /** The source's time of `low`. */
  get timeUs(): bigint | undefined {
    return this.#timeUs
  }

  /** The number of the entry that was added last: on the target when `lowOrder` has reached it. */
  get order(): number {
    return this.#order
  }

  /** Nothing waits, and nothing is under way. */
  get idle(): boolean {
    return this.#head === this.#nodes.length
  }

  get depth(): number {
    return this.#nodes.length - this.#head
  }

  get full(): boolean {
    return this.depth >= windowTransactionsMax || this.#bytes >= windowBytesMax
  }

  /** Whether a transaction was on the target already when this began. */
  isInherited({ history, at }: Position): boolean {
    return history === this.#low.history && this.#inherited.includes(at)
  }

  add(entry: Entry<T>): void {
    this.#order += 1
    const { position, timeUs, work } = entry
    const last = this.idle ? undefined : this.#nodes.at(-1)
    if (work === undefined && last?.empty) {
      // Of those that only move the mark the last says it for all.
      Object.assign(last, { position, timeUs, order: this.#order })
      return
    }
    const node: Node<T> = {
      ...entry,
      order: this.#order,
      empty: work === undefined,
      missing: 0,
      dependents: [],
      state: 'waits',
      alone: false,
    }
    this.#nodes.push(node)
    this.#bytes += node.sizeBytes
    if (work === undefined) return this.#done(node)
    this.#hold(node)
    if (node.missing === 0) this.#makeReady(node)
  }

  /** What a lane commits next, when so many lanes have nothing to do. Must be ended by `committed` or `again`. */
  take(lanes: number): Group<T> | undefined {
    const first = this.#nodes[this.#head]
    if (first?.alone) {
      if (first.state !== 'ready') return undefined
      first.state = 'busy'
      return { entries: [first], sole: true }
    }
    const share = Math.ceil(this.#ready.length / Math.max(1, lanes))
    if (share === 0) return undefined
    const nodes = this.#gather(this.#ready.splice(0, Math.min(share, groupTransactionsMax)))
    // As they stood in the log, so that whatever no key tells of keeps its order too.
    nodes.sort((a, b) => a.order - b.order)
    return { entries: nodes, sole: nodes.length === 1 && nodes[0] === first }
  }

  /** What stands on the target when a lane commits this group now. */
  mark(lane: number, group: Group<T>): Mark {
    const added = new Set<unknown>(group.entries)
    let { position: low, order } = { position: this.#low, order: this.#lowOrder }
    for (let at = this.#head; at < this.#nodes.length; at++) {
      const node = this.#nodes[at]
      if (!node || (node.state !== 'done' && !added.has(node))) break
      low = node.position
      order = node.order
    }
    const own = [...this.#ownOf(lane), ...(group.entries as readonly Node<T>[])]
    const later = own.filter((node) => node.order > order).map((node) => node.position.at)
    return { low, beyond: [...new Set([...this.#inheritedBehind(low), ...later])] }
  }

  /** The mark of a transaction that is committed while nothing else is under way. */
  markAt(position: Position): Mark {
    assert(this.idle, 'nothing else is under way')
    return { low: position, beyond: this.#inheritedBehind(position) }
  }

  committed(lane: number, group: Group<T>): void {
    const nodes = group.entries as readonly Node<T>[]
    this.#ownOf(lane).push(...nodes)
    for (const node of nodes) this.#done(node)
    for (const [index, own] of this.#own.entries()) {
      this.#own[index] = own.filter(({ order }) => order > this.#lowOrder)
    }
  }

  /** The group was rolled back: each of it goes alone, when all before it are there. */
  again(group: Group<T>): void {
    for (const node of group.entries as readonly Node<T>[]) {
      node.alone = true
      node.state = node.missing === 0 ? 'ready' : 'waits'
    }
  }

  /** The log goes on in another history, where nothing is known of what was beyond. */
  changeHistory(): void {
    assert(this.idle, 'a history ends when all of it is on the target')
    this.#inherited = []
  }

  #hold(node: Node<T>): void {
    for (const key of node.keys) {
      const holder = this.#holders.get(key)
      this.#holders.set(key, node)
      if (holder === undefined || holder === node || holder.dependents.at(-1) === node) continue
      holder.dependents.push(node)
      node.missing += 1
    }
  }

  #makeReady(node: Node<T>): void {
    node.state = 'ready'
    if (!node.alone) this.#ready.push(node)
  }

  /** Adds what waits for nothing but these. */
  #gather(nodes: Node<T>[]): Node<T>[] {
    const found = new Map<Node<T>, number>()
    let bytes = 0
    for (const [index, node] of nodes.entries()) {
      if (index > 0 && bytes + node.sizeBytes > groupBytesMax) {
        // Those of its own that were found stay what they are: they wait.
        const back = nodes.splice(index).filter(({ state }) => state === 'ready')
        this.#ready.unshift(...back)
        break
      }
      bytes += node.sizeBytes
      node.state = 'busy'
      for (const next of node.dependents) {
        const count = (found.get(next) ?? 0) + 1
        found.set(next, count)
        const fits = count === next.missing && !next.alone && nodes.length < groupTransactionsMax
        if (fits) nodes.push(next)
      }
    }
    return nodes
  }

  #done(node: Node<T>): void {
    node.state = 'done'
    node.work = undefined
    this.#bytes -= node.sizeBytes
    for (const key of node.keys) {
      if (this.#holders.get(key) === node) this.#holders.delete(key)
    }
    for (const next of node.dependents) {
      next.missing -= 1
      if (next.missing === 0 && next.state === 'waits') this.#makeReady(next)
    }
    for (let first = this.#nodes[this.#head]; first?.state === 'done'; ) {
      this.#low = first.position
      this.#lowOrder = first.order
      this.#timeUs = first.timeUs
      this.#head += 1
      first = this.#nodes[this.#head]
    }
    if (this.#inherited.length > 0) this.#inherited = this.#inheritedBehind(this.#low)
    if (this.#head > windowTransactionsMax || this.idle) {
      this.#nodes.splice(0, this.#head)
      this.#head = 0
    }
  }

  #ownOf(lane: number): Node<T>[] {
    const own = this.#own[lane]
    assert(own !== undefined, `lane ${lane} is one of ours`)
    return own
  }

  #inheritedBehind({ history, at }: Position): readonly string[] {
    if (history !== this.#low.history) return []
    return this.#inherited.filter((one) => one > at)
  }
}
