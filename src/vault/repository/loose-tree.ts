import { Fault } from '#base/faults'
import type { Nameless } from '#change/tree'
import { type TreeNode, TreeBuilder } from './tree-codec.ts'
import type { BlobSaver } from './repository.ts'

/** A node whose name is the last part of the path beside it. */
export type NodeBody = Nameless<TreeNode>

type Directory = {
  /** The directory's own node, once it was added; a parent that never was gets a plain one. */
  node: TreeNode | undefined
  readonly children: Map<string, TreeNode | Directory>
}

/**
 * A tree whose nodes arrive in any order, as a database sends its files. Holds one record a node in memory: for bases
 * of up to some hundred thousand files; file trees of any size go through the archiver.
 */
export class LooseTree {
  readonly #root: Directory = { node: undefined, children: new Map() }
  readonly #plain: (name: Buffer) => TreeNode

  /** `plain` makes the node of a directory that nobody added. */
  constructor(plain: (name: Buffer) => TreeNode) {
    this.#plain = plain
  }

  /** Adds a node at a relative path, `/` between its parts; the node's own name is the last part. */
  add(path: string, node: NodeBody): void {
    const parts = path.split('/')
    const name = parts.pop()
    if (!name || parts.some((part) => part === '' || part === '.' || part === '..')) {
      throw new Fault('protocol', `store a base: path '${path}' is not a plain relative path`)
    }
    const directory = parts.reduce((at, part) => enter(at, part, path), this.#root)
    const named = { ...node, name: Buffer.from(name) } as TreeNode
    if (node.kind === 'dir') {
      enter(directory, name, path).node = named
      return
    }
    if (directory.children.has(name)) {
      throw new Fault('protocol', `store a base: path '${path}' came twice`)
    }
    directory.children.set(name, named)
  }

  /** Writes all trees, children first, and returns the root's id. */
  async save(saver: BlobSaver): Promise<string> {
    return this.#saveDirectory(this.#root, saver)
  }

  async #saveDirectory(directory: Directory, saver: BlobSaver): Promise<string> {
    const builder = new TreeBuilder()
    const children = [...directory.children].map(([name, child]) => ({
      name: Buffer.from(name),
      child,
    }))
    for (const { name, child } of children.toSorted((a, b) => Buffer.compare(a.name, b.name))) {
      if ('children' in child) {
        const subtree = await this.#saveDirectory(child, saver)
        builder.add({ ...(child.node ?? this.#plain(name)), subtree })
      } else {
        builder.add(child)
      }
    }
    return saver.saveBlob('tree', builder.done(), { isGiven: true })
  }
}

function enter(directory: Directory, name: string, path: string): Directory {
  const child = directory.children.get(name)
  if (child && 'children' in child) return child
  if (child) throw new Fault('protocol', `store a base: '${path}' lies below a file`)
  const made: Directory = { node: undefined, children: new Map() }
  directory.children.set(name, made)
  return made
}
