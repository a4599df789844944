import { Fault } from '#base/faults'
import type { BlockWriter, Inspection } from '#base/blocks'
import type { Progress } from '#base/progress'
import type { BaseEntry, BaseSink } from '#engines'
import { type Extent, layChunks, patchFile } from './patched-file.ts'
import { PieceSaver } from './piece-saver.ts'
import type { BlobSaver, Repository } from '#vault'
import { LooseTree, type NodeBody } from '#vault/repository/loose-tree'
import type { TreeNode } from '#vault/repository/tree-codec'

/** What encryption adds to a blob that is not compressed: IV and MAC. */
const envelopeBytes = 32

export type VaultSinkOptions = {
  readonly repository: Repository
  readonly saver: BlobSaver
  readonly progress: Progress
  readonly signal: AbortSignal
  /** The parent base's files by path, when an incremental base may patch them. */
  readonly parent?: ReadonlyMap<string, TreeNode> | undefined
}

/** Takes the files of a base into a repository; `save` then writes the trees and gives the root's id. */
export class VaultSink implements BaseSink {
  readonly #options: VaultSinkOptions
  readonly #tree = new LooseTree(plainDirectory)
  readonly #pieces: PieceSaver

  constructor(options: VaultSinkOptions) {
    this.#options = options
    this.#pieces = new PieceSaver(options.saver, options.progress)
  }

  async file(
    path: string,
    entry: BaseEntry<'file'>,
    content: AsyncIterable<Buffer>,
  ): Promise<void> {
    await this.#pieces.take(content, ({ blobs, sizeBytes }) => {
      this.#add(path, { ...entry, sizeBytes, content: blobs })
    })
  }

  blocks(path: string, entry: BaseEntry<'file'>, inspection?: Inspection): BlockWriter {
    const writer = this.#options.saver.writeBlocks({ inspection })
    return {
      write: (bytes) => writer.write(bytes),
      end: async () => {
        const { blobs, ...written } = await writer.end()
        this.#add(path, { ...entry, sizeBytes: BigInt(written.sizeBytes), content: blobs })
        return written
      },
    }
  }

  async node(path: string, entry: BaseEntry<'dir' | 'symlink' | 'fifo' | 'socket'>): Promise<void> {
    this.#tree.add(path, entry)
  }

  /** Makes the whole file from the parent's chunks and the extents: see `patchFile`. */
  async patch(
    path: string,
    entry: BaseEntry<'file'>,
    extents: AsyncIterable<Extent>,
  ): Promise<void> {
    const parent = this.#options.parent?.get(path)
    if (parent?.kind !== 'file') {
      throw new Fault('missing', `patch '${path}': the parent base has no such file`)
    }
    const { repository, signal } = this.#options
    const sizeBytes = Number(entry.sizeBytes)
    const chunks = layChunks(this.#chunksOf(parent.content ?? []), sizeBytes)
    const load = (id: string) => repository.loadBlob('data', id, { signal })
    const content: string[] = []
    for await (const piece of patchFile(chunks, sizeBytes, extents, load)) {
      if (piece.kind === 'kept') {
        content.push(piece.id)
        continue
      }
      const writer = this.#options.saver.writeBlocks({ offset: piece.offset })
      for await (const bytes of piece.bytes) await writer.write(bytes)
      content.push(...(await writer.end()).blobs)
    }
    this.#add(path, { ...entry, content })
  }

  async save(): Promise<string> {
    await this.#pieces.idle()
    return this.#tree.save(this.#options.saver)
  }

  #add(path: string, node: NodeBody): void {
    this.#tree.add(path, node)
    this.#options.progress.doneItems += 1
  }

  #chunksOf(ids: readonly string[]) {
    return ids.map((id) => {
      const place = this.#options.repository.find('data', id)
      if (!place) throw new Fault('corrupt', `read the parent base: blob ${id} is in no index`)
      return { id, sizeBytes: place.plainLength || place.length - envelopeBytes }
    })
  }
}

function plainDirectory(name: Buffer): TreeNode {
  const nowNs = BigInt(Date.now()) * 1_000_000n
  return {
    kind: 'dir',
    name,
    mode: 0o700,
    mtimeNs: nowNs,
    atimeNs: nowNs,
    ctimeNs: nowNs,
    uid: 0,
    gid: 0,
    inode: 0n,
    device: 0n,
    links: 0,
    xattrs: [],
  }
}
