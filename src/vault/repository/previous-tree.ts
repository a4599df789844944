import { isFault } from '#base/faults'
import { decodeTree, type TreeNode } from './tree-codec.ts'

/**
 * A tree of the parent snapshot, read alongside the walk: both are in the same order, so that one node of it
 * is held at a time, however large the directory.
 */
export class PreviousTree {
  readonly #nodes: Iterator<TreeNode, void>
  #next: TreeNode | undefined

  constructor(bytes: Buffer, tree: string) {
    this.#nodes = decodeTree(bytes, `tree ${tree}`)
    this.#advance()
  }

  /** The node of this name; names are asked for in ascending order. */
  find(name: Buffer): TreeNode | undefined {
    while (this.#next && Buffer.compare(this.#next.name, name) < 0) this.#advance()
    return this.#next?.name.equals(name) ? this.#next : undefined
  }

  #advance(): void {
    try {
      const { value } = this.#nodes.next()
      this.#next = value ?? undefined
    } catch (error) {
      // The rest of a damaged tree counts as unknown: its files are read again.
      if (!isFault(error, 'corrupt')) throw error
      this.#next = undefined
    }
  }
}
