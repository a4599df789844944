import { type Fault, isFault } from '#base/faults'
import { IdSet } from './id-set.ts'
import type { Repository } from './repository.ts'
import type { TreeNode } from './tree-codec.ts'
import { decodeTree } from './tree-decoder.ts'

/** What is needed to read trees. */
export type TreeSource = Pick<Repository, 'loadBlob' | 'loadBlobs'>

/** Trees asked for together, so that neighbours in a pack cost one request. */
const batchTrees = 2048
const readsWidth = 4

export type TreeVisitor = {
  /** Each node once for each tree that holds it. */
  readonly onNode?: ((tree: string, node: TreeNode) => void) | undefined
  /** A tree that is missing or damaged; without this the fault is thrown. */
  readonly onDamaged?: ((tree: string, fault: Fault) => void) | undefined
  /** Told as trees are done. */
  readonly onTree?: (() => void) | undefined
}

/**
 * Reads every tree below the roots once, in no order. Trees in `seen` are passed over, those read are entered: one
 * set carried along makes a walk of many snapshots cost what their differences cost.
 */
export async function visitTrees(
  repository: TreeSource,
  roots: Iterable<string>,
  seen: IdSet,
  options: TreeVisitor & { readonly signal: AbortSignal },
): Promise<void> {
  const { signal, onNode, onDamaged, onTree } = options
  const pending: string[] = []
  const enter = (tree: string) => {
    if (seen.add(tree)) pending.push(tree)
  }
  for (const root of roots) enter(root)
  const visit = async (tree: string, bytes: Buffer) => {
    try {
      for (const node of decodeTree(bytes, `tree ${tree}`)) {
        if (node.subtree !== undefined) enter(node.subtree)
        onNode?.(tree, node)
      }
      onTree?.()
    } catch (error) {
      if (!onDamaged || !isFault(error, 'corrupt')) throw error
      onDamaged(tree, error)
    }
  }
  // From the top of the stack, so that it stays as shallow as the trees are.
  while (pending.length > 0) {
    const batch = pending.splice(-batchTrees)
    await repository.loadBlobs(batch, { signal, width: readsWidth, type: 'tree', onDamaged }, visit)
  }
}

/** Blobs that snapshots need. */
export type UsedBlobs = { readonly trees: IdSet; readonly data: IdSet }

/** Everything that the roots need. Throws what a missing or damaged tree throws, unless `onDamaged` takes it. */
export async function findUsedBlobs(
  repository: TreeSource,
  roots: Iterable<string>,
  options: Omit<TreeVisitor, 'onNode'> & { readonly signal: AbortSignal },
): Promise<UsedBlobs> {
  const used = { trees: new IdSet(), data: new IdSet() }
  await visitTrees(repository, roots, used.trees, {
    ...options,
    onNode: (_tree, node) => {
      for (const id of node.content ?? []) used.data.add(id)
    },
  })
  return used
}

/**
 * For each root the bad blobs that it needs: what a finding about a pack means to those who restore. Trees that
 * cannot be read are bad themselves, and what lies below them is unknown.
 */
export async function traceBadBlobs(
  repository: TreeSource,
  roots: ReadonlyMap<string, readonly string[]>,
  bad: ReadonlySet<string>,
  { signal }: { readonly signal: AbortSignal },
): Promise<ReadonlyMap<string, ReadonlySet<string>>> {
  const clean = new IdSet()
  const dirty = new Map<string, ReadonlySet<string>>()
  const trace = async (tree: string): Promise<ReadonlySet<string>> => {
    if (clean.has(tree)) return none
    const known = dirty.get(tree)
    if (known) return known
    signal.throwIfAborted()
    const found = new Set<string>(bad.has(tree) ? [tree] : [])
    for (const node of await nodesOf(repository, tree, signal)) {
      for (const id of node.content ?? []) if (bad.has(id)) found.add(id)
      if (node.subtree !== undefined) for (const id of await trace(node.subtree)) found.add(id)
    }
    if (found.size === 0) clean.add(tree)
    else dirty.set(tree, found)
    return found
  }
  const users = new Map<string, Set<string>>()
  for (const [tree, snapshots] of roots) {
    for (const id of await trace(tree)) {
      const own = users.get(id) ?? new Set()
      for (const snapshot of snapshots) own.add(snapshot)
      users.set(id, own)
    }
  }
  return users
}

const none: ReadonlySet<string> = new Set()

async function nodesOf(
  repository: TreeSource,
  tree: string,
  signal: AbortSignal,
): Promise<Iterable<TreeNode>> {
  const nodes: TreeNode[] = []
  try {
    const bytes = await repository.loadBlob('tree', tree, { signal })
    for (const node of decodeTree(bytes, `tree ${tree}`)) {
      if (node.subtree !== undefined || node.content) nodes.push(node)
    }
  } catch (error) {
    if (!isFault(error, 'corrupt', 'missing')) throw error
  }
  return nodes
}
