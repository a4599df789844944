import { isFault } from '#base/faults'
import type { TreeNode } from './tree-codec.ts'
import { decodeTree } from './tree-decoder.ts'

/**
 * A tree of the parent snapshot, read alongside the walk: both are in the same order, so that one node of it
 * is held at a time, however large the directory. Nodes bear their text, so that what is as it was is written as it was.
 */
export class PreviousTree {
  readonly #nodes: Iterator<TreeNode, void>
  #next: TreeNode | undefined

  constructor(bytes: Buffer, tree: string) {
    this.#nodes = decodeTree(bytes, `tree ${tree}`, { withText: true })
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

/**
 * The parent's node where it says the same, and holds the same. Its text is then taken over: a tree in which nothing
 * changed is the parent's tree, though its writer wrote times in another zone.
 */
export function asBefore(node: TreeNode, before: TreeNode | undefined): TreeNode {
  return before && sameNode(before, node) ? before : node
}

/** Whether two nodes of the same name say the same, and hold the same. */
function sameNode(a: TreeNode, b: TreeNode): boolean {
  return (
    a.kind === b.kind &&
    a.mode === b.mode &&
    a.mtimeNs === b.mtimeNs &&
    a.atimeNs === b.atimeNs &&
    a.ctimeNs === b.ctimeNs &&
    a.uid === b.uid &&
    a.gid === b.gid &&
    a.user === b.user &&
    a.group === b.group &&
    a.inode === b.inode &&
    a.device === b.device &&
    (a.kind === 'dir' || a.links === b.links) &&
    (a.kind !== 'file' || b.kind !== 'file' || a.sizeBytes === b.sizeBytes) &&
    (a.kind !== 'symlink' || b.kind !== 'symlink' || a.target.equals(b.target)) &&
    ((a.kind !== 'dev' && a.kind !== 'chardev') || a.kind !== b.kind || a.rdev === b.rdev) &&
    a.subtree === b.subtree &&
    a.error === b.error &&
    a.genericAttributes === b.genericAttributes &&
    sameList(a.content, b.content) &&
    a.xattrs.length === b.xattrs.length &&
    a.xattrs.every(
      ({ name, value }, index) =>
        name === b.xattrs[index]?.name && value.equals(b.xattrs[index].value),
    )
  )
}

function sameList(a: readonly string[] = [], b: readonly string[] = []): boolean {
  return a === b || (a.length === b.length && a.every((id, index) => id === b[index]))
}
