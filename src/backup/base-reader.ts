import { Fault } from '#base/faults'
import type { BaseFile, BaseReader } from '#engines'
import type { Repository } from '#vault'
import { type ReadNode, readContent, readNodes } from '#vault/repository/tree-reader'
import { restoreTree } from '#vault/repository/restorer'
import { openTarget } from '#files'

/** How an engine reads a stored base: a tree of the repository, by path. */
export function openBaseReader(repository: Repository, tree: string): BaseReader {
  let nodes: Promise<Map<string, ReadNode>> | undefined
  const load = (signal: AbortSignal) => {
    nodes ??= readAll(repository, tree, signal)
    return nodes
  }
  return {
    async *list({ signal }): AsyncGenerator<BaseFile, void, void> {
      for (const { path, node } of (await load(signal)).values()) {
        if (node.kind === 'file') yield { path, sizeBytes: node.sizeBytes }
      }
    },
    async *read(path, { signal }) {
      const found = (await load(signal)).get(path)
      if (found?.node.kind !== 'file') {
        throw new Fault('missing', `read the base: it has no file '${path}'`)
      }
      yield* readContent(repository, found.node, { signal })
    },
    async layOut(directory, { signal, progress, map }) {
      await repository.loadIndex({ signal })
      await using target = await openTarget(directory, { overwrite: 'always', owners: false })
      await restoreTree(repository, tree, target, {
        signal,
        progress,
        removeOthers: true,
        map: map && ((path) => toBytes(map(path.toString()))),
      })
    },
  }
}

function toBytes(path: string | undefined): Buffer | undefined {
  return path === undefined ? undefined : Buffer.from(path)
}

async function readAll(
  repository: Repository,
  tree: string,
  signal: AbortSignal,
): Promise<Map<string, ReadNode>> {
  await repository.loadIndex({ signal })
  const nodes = new Map<string, ReadNode>()
  for await (const found of readNodes(repository, tree, { signal })) nodes.set(found.path, found)
  return nodes
}
