import { hash } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { fromSystem, isFault } from '#base/faults'
import type { Progress } from '#base/progress'
import type { TreeEntry, TreeEvent, TreeSource } from '#change/tree'
import { envelopeOverheadBytes } from './crypto.ts'
import type { Repository } from './repository.ts'
import type { Selection } from './restorer.ts'
import type { TreeNode } from './tree-codec.ts'
import { joinPath, type StoredEvent, TreeWalk } from './tree-walk.ts'

/** One way in which a tree is not what the snapshot says; `path` is relative to the tree's root. */
export type Difference = {
  /** `missing`: only in the snapshot; `extra`: only in the tree; `unread`: could not be looked at. */
  readonly kind: 'missing' | 'extra' | 'type' | 'content' | 'attributes' | 'unread'
  readonly path: Buffer
  /** Which attributes differ, or what went wrong. */
  readonly said: string
}

export type CompareOptions = {
  readonly signal: AbortSignal
  readonly select?: Selection | undefined
  readonly progress?: Progress | undefined
  /** Take files of the same size and time for equal, unread. */
  readonly trustTimes?: boolean | undefined
  /** Leave owners out, where a restore could not set them. */
  readonly ignoreOwners?: boolean | undefined
}

/**
 * Compares a stored tree with one that is there, reading every file, and yields the differences in the order of
 * the tree. Nothing is fetched but the trees: contents are compared by their hashes. Changes nothing.
 */
export async function* compareTree(
  repository: Repository,
  tree: string,
  present: TreeSource,
  options: CompareOptions,
): AsyncGenerator<Difference, void, void> {
  yield* new Comparer(repository, options).run(tree, present)
}

class Comparer {
  readonly #repository: Repository
  readonly #options: CompareOptions

  constructor(repository: Repository, options: CompareOptions) {
    this.#repository = repository
    this.#options = options
  }

  async *run(tree: string, present: TreeSource): AsyncGenerator<Difference, void, void> {
    const { signal } = this.#options
    await using stored = new Cursor(this.#storedEvents(tree))
    await using found = new Cursor(present.walk({ signal }))
    await stored.advance()
    await found.advance()
    let path: Buffer = Buffer.alloc(0)
    for (;;) {
      signal.throwIfAborted()
      const is = found.current
      if (is?.kind === 'trouble') {
        yield { kind: 'unread', path: is.path, said: is.error.message }
        await found.advance()
        continue
      }
      const was = stored.current
      const order = compareOrder(was, is)
      if (order === 'end') return
      if (order === 'leave') {
        path = path.subarray(0, Math.max(path.lastIndexOf(0x2f), 0))
        await Promise.all([stored.advance(), found.advance()])
      } else if (order === 'missing' && was && was.kind !== 'leave') {
        yield { kind: 'missing', path: was.path, said: `${was.node.kind} is not there` }
        await stored.pass()
      } else if (order === 'extra' && is && is.kind !== 'leave') {
        const at = joinPath(path, is.entry.name)
        if (this.#selected(at, is.entry.kind).selected)
          yield { kind: 'extra', path: at, said: `${is.entry.kind} is not in the snapshot` }
        await found.pass()
      } else if (was && is && was.kind !== 'leave' && is.kind !== 'leave') {
        yield* this.#pair(was, is)
        if (was.kind === 'enter' && is.kind === 'enter') {
          path = was.path
          await Promise.all([stored.advance(), found.advance()])
        } else await Promise.all([stored.pass(), found.pass()])
      }
    }
  }

  /** The stored tree's events, as far as they are selected. */
  async *#storedEvents(tree: string): AsyncGenerator<StoredEvent, void, void> {
    const walk = new TreeWalk(this.#repository, tree, { signal: this.#options.signal })
    for await (const event of walk) {
      if (event.kind === 'leave') yield event
      else {
        const { selected, below } = this.#selected(event.path, event.node.kind)
        if (selected || (event.kind === 'enter' && below)) yield event
        else if (event.kind === 'enter') walk.skip()
      }
    }
  }

  #selected(path: Buffer, kind: TreeEntry['kind']) {
    const { select } = this.#options
    return select?.(Buffer.concat([slash, path]), kind) ?? { selected: true, below: true }
  }

  async *#pair(
    was: StoredEvent & { readonly node: TreeNode },
    is: TreeEvent & { readonly entry: TreeEntry },
  ): AsyncGenerator<Difference, void, void> {
    const { node, path } = was
    const { entry } = is
    if (!this.#selected(path, node.kind).selected) return
    if (node.kind !== entry.kind) {
      yield { kind: 'type', path, said: `it is ${entry.kind}, and was ${node.kind}` }
      return
    }
    const attributes = this.#differing(node, entry)
    if (attributes.length > 0) yield { kind: 'attributes', path, said: attributes.join(', ') }
    if (node.kind !== 'file' || entry.kind !== 'file') return
    if (this.#options.progress) this.#options.progress.doneItems += 1
    if (node.sizeBytes !== entry.sizeBytes) {
      const said = `it has ${entry.sizeBytes} bytes, and had ${node.sizeBytes}`
      yield { kind: 'content', path, said }
      return
    }
    if (this.#options.trustTimes && node.mtimeNs === entry.mtimeNs) return
    if (is.kind === 'node' && is.content?.kind === 'path')
      yield* this.#content(node, path, is.content.path)
  }

  async *#content(
    node: TreeNode,
    path: Buffer,
    file: Buffer,
  ): AsyncGenerator<Difference, void, void> {
    try {
      const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
      await using handle = await open(file, flags)
      const offset = await this.#firstDifference(node, handle)
      if (offset !== undefined) yield { kind: 'content', path, said: `bytes differ from ${offset}` }
    } catch (error) {
      const fault = fromSystem(error, `read ${file.toString()}`)
      if (!isFault(fault, 'io', 'missing')) throw error
      yield { kind: 'unread', path, said: fault.message }
    }
  }

  /** Start of the first chunk that the file does not hold. */
  async #firstDifference(node: TreeNode, handle: FileHandle): Promise<number | undefined> {
    let offset = 0
    for (const id of node.content ?? []) {
      this.#options.signal.throwIfAborted()
      const place = this.#repository.find('data', id)
      const size = place && (place.plainLength || place.length - envelopeOverheadBytes)
      // A chunk that no index lists has no known size: the file cannot be compared from here on.
      if (size === undefined) return offset
      const { buffer, bytesRead } = await handle.read(Buffer.allocUnsafe(size), 0, size, offset)
      if (bytesRead !== size || hash('sha256', buffer, 'hex') !== id) return offset
      offset += size
      if (this.#options.progress) this.#options.progress.doneBytes += size
    }
    return undefined
  }

  #differing(node: TreeNode, entry: TreeEntry): string[] {
    const differing: string[] = []
    if (node.kind !== 'symlink' && node.mode !== entry.mode)
      differing.push(`mode ${entry.mode.toString(8)} was ${node.mode.toString(8)}`)
    if (node.mtimeNs !== entry.mtimeNs) differing.push('modification time')
    if (!this.#options.ignoreOwners && (node.uid !== entry.uid || node.gid !== entry.gid))
      differing.push(`owner ${entry.uid}:${entry.gid} was ${node.uid}:${node.gid}`)
    if (xattrText(node) !== xattrText(entry)) differing.push('extended attributes')
    if (node.kind === 'symlink' && entry.kind === 'symlink' && !node.target.equals(entry.target))
      differing.push('target')
    const device = (each: TreeEntry) =>
      each.kind === 'dev' || each.kind === 'chardev' ? each.rdev : 0n
    if (device(node) !== device(entry)) differing.push('device')
    return differing
  }
}

const slash = Buffer.from('/')

function xattrText({ xattrs }: TreeEntry): string {
  return xattrs
    .map(({ name, value }) => `${name}=${value.toString('hex')}`)
    .sort()
    .join()
}

/** Which of two ordered walks is behind: both are in the same directory, whose ends meet. */
function compareOrder(
  was: StoredEvent | undefined,
  is: Exclude<TreeEvent, { readonly kind: 'trouble' }> | undefined,
): 'end' | 'leave' | 'missing' | 'extra' | 'both' {
  const wasName = was && was.kind !== 'leave' ? was.node.name : undefined
  const isName = is && is.kind !== 'leave' ? is.entry.name : undefined
  if (!wasName && !isName) return was ? 'leave' : 'end'
  if (!isName) return 'missing'
  if (!wasName) return 'extra'
  const order = Buffer.compare(wasName, isName)
  if (order === 0) return 'both'
  return order < 0 ? 'missing' : 'extra'
}

/** An event stream with the event that is next. */
class Cursor<E extends { readonly kind: string }> implements AsyncDisposable {
  readonly #events: AsyncIterator<E>
  current: E | undefined

  constructor(events: AsyncIterable<E>) {
    this.#events = events[Symbol.asyncIterator]()
  }

  async advance(): Promise<void> {
    const next = await this.#events.next()
    this.current = next.done ? undefined : next.value
  }

  /** Passes over the current node, a directory with all that is in it. */
  async pass(): Promise<void> {
    let depth = 0
    do {
      if (this.current?.kind === 'enter') depth += 1
      if (this.current?.kind === 'leave') depth -= 1
      await this.advance()
    } while (depth > 0 && this.current)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#events.return?.()
  }
}
