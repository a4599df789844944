import { Fault } from '#base/faults'
import type { Repository } from './repository.ts'
import type { TreeNode } from './tree-codec.ts'
import { decodeTree } from './tree-decoder.ts'

/** Blobs fetched ahead of the one that is being consumed. */
const aheadMax = 4

export type ReadNode = {
  /** Relative to the tree's root, `/` between the parts. */
  readonly path: string
  readonly node: TreeNode
}

/** All nodes of a tree, parents before children, in the tree's own order. */
export async function* readNodes(
  repository: Repository,
  tree: string,
  options: { readonly signal: AbortSignal },
): AsyncGenerator<ReadNode, void, void> {
  yield* readBelow(repository, tree, '', options)
}

async function* readBelow(
  repository: Repository,
  tree: string,
  above: string,
  options: { readonly signal: AbortSignal },
): AsyncGenerator<ReadNode, void, void> {
  const bytes = await repository.loadBlob('tree', tree, options)
  for (const node of decodeTree(bytes, `tree ${tree}`)) {
    const path = above + node.name.toString()
    yield { path, node }
    if (node.kind !== 'dir') continue
    if (!node.subtree)
      throw new Fault('corrupt', `read tree ${tree}: directory '${path}' has no subtree`)
    yield* readBelow(repository, node.subtree, `${path}/`, options)
  }
}

/** The bytes of a file, in order, a few blobs fetched ahead. */
export async function* readContent(
  repository: Repository,
  node: TreeNode,
  options: { readonly signal: AbortSignal },
): AsyncGenerator<Buffer, void, void> {
  const ids = node.content ?? []
  const ahead: Promise<Buffer>[] = []
  let next = 0
  const fetch = () => {
    const id = ids[next++]
    if (id === undefined) return
    const blob = repository.loadBlob('data', id, options)
    blob.catch(() => undefined)
    ahead.push(blob)
  }
  while (ahead.length < aheadMax && next < ids.length) fetch()
  for (let blob = ahead.shift(); blob !== undefined; blob = ahead.shift()) {
    yield await blob
    fetch()
  }
}
