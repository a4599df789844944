import { Fault } from '#base/faults'
import type { Repository } from './repository.ts'
import type { TreeNode } from './tree-codec.ts'
import { decodeTree } from './tree-decoder.ts'
import { TreeLoader } from './tree-loader.ts'

/** What a walk of a stored tree comes by, depth first, names in byte order; paths are relative to its root. */
export type StoredEvent =
  | { readonly kind: 'enter' | 'node'; readonly node: TreeNode; readonly path: Buffer }
  | { readonly kind: 'leave'; readonly path: Buffer }

type Frame = { readonly path: Buffer; readonly nodes: Iterator<TreeNode, void> }

/**
 * Walks a stored tree. After an `enter`, `skip` passes over the directory: no event of what is in it follows,
 * nor its `leave`. A tree that cannot be read throws, unless `onDamage` takes the fault: then its directory is
 * empty.
 */
export class TreeWalk implements AsyncIterable<StoredEvent> {
  readonly #trees: TreeLoader
  readonly #tree: string
  readonly #signal: AbortSignal
  readonly #onDamage: ((path: Buffer, fault: Fault) => void) | undefined
  #skip = false

  constructor(
    repository: Repository,
    tree: string,
    options: {
      readonly signal: AbortSignal
      readonly onDamage?: ((path: Buffer, fault: Fault) => void) | undefined
    },
  ) {
    this.#trees = new TreeLoader(repository)
    this.#tree = tree
    this.#signal = options.signal
    this.#onDamage = options.onDamage
  }

  skip(): void {
    this.#skip = true
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<StoredEvent, void, void> {
    const frames = [await this.#frame(Buffer.alloc(0), this.#tree)]
    for (let frame = frames.at(-1); frame; frame = frames.at(-1)) {
      const node = this.#next(frame)
      if (!node) {
        frames.pop()
        if (frames.length > 0) yield { kind: 'leave', path: frame.path }
        continue
      }
      const path = joinPath(frame.path, node.name)
      if (node.subtree === undefined) {
        yield { kind: 'node', node, path }
        continue
      }
      this.#skip = false
      yield { kind: 'enter', node, path }
      if (!this.#skip) frames.push(await this.#frame(path, node.subtree))
    }
  }

  async #frame(path: Buffer, tree: string): Promise<Frame> {
    this.#signal.throwIfAborted()
    try {
      const bytes = await this.#trees.load(tree, this.#signal)
      return { path, nodes: decodeTree(bytes, `tree ${tree}`) }
    } catch (error) {
      return { path, nodes: this.#damaged(path, error) }
    }
  }

  #next(frame: Frame): TreeNode | undefined {
    try {
      return frame.nodes.next().value ?? undefined
    } catch (error) {
      this.#damaged(frame.path, error)
      return undefined
    }
  }

  #damaged(path: Buffer, error: unknown): Iterator<TreeNode, void> {
    const damage = error instanceof Fault && (error.code === 'corrupt' || error.code === 'missing')
    if (!this.#onDamage || !damage) throw error
    this.#onDamage(path, error)
    return [].values()
  }
}

export function joinPath(directory: Buffer, name: Buffer): Buffer {
  return directory.length === 0 ? name : Buffer.concat([directory, slash, name])
}

const slash = Buffer.from('/')
