import { formatTimeNs } from './go-text.ts'
import type { SaverStats } from './repository.ts'
import type { TreeNode } from './tree-codec.ts'

/** What restic notes of a backup in its snapshot, under the same names. */
export type ArchiveSummary = {
  readonly backup_start: string
  readonly backup_end: string
  readonly files_new: number
  readonly files_changed: number
  readonly files_unmodified: number
  readonly dirs_new: number
  readonly dirs_changed: number
  readonly dirs_unmodified: number
  readonly data_blobs: number
  readonly tree_blobs: number
  readonly data_added: number
  readonly data_added_packed: number
  readonly total_files_processed: number
  readonly total_bytes_processed: number
}

/** Counts what a backup came by, against what the parent snapshot had in its place. */
export class ArchiveCounts {
  #filesNew = 0
  #filesChanged = 0
  #filesUnmodified = 0
  #dirsNew = 0
  #dirsChanged = 0
  #dirsUnmodified = 0
  #files = 0
  #bytes = 0n

  /** `node` is `before` itself where nothing changed. */
  add(node: TreeNode, before: TreeNode | undefined): void {
    const unmodified = node === before
    if (node.kind === 'file') {
      this.#files += 1
      this.#bytes += node.sizeBytes
      if (!before) this.#filesNew += 1
      else if (unmodified) this.#filesUnmodified += 1
      else this.#filesChanged += 1
    } else if (node.kind === 'dir') {
      if (!before) this.#dirsNew += 1
      else if (unmodified) this.#dirsUnmodified += 1
      else this.#dirsChanged += 1
    }
  }

  summarize(stats: SaverStats, startMs: number, endMs: number): ArchiveSummary {
    return {
      backup_start: formatMs(startMs),
      backup_end: formatMs(endMs),
      files_new: this.#filesNew,
      files_changed: this.#filesChanged,
      files_unmodified: this.#filesUnmodified,
      dirs_new: this.#dirsNew,
      dirs_changed: this.#dirsChanged,
      dirs_unmodified: this.#dirsUnmodified,
      data_blobs: stats.dataBlobs,
      tree_blobs: stats.treeBlobs,
      data_added: Number(stats.addedBytes),
      data_added_packed: Number(stats.storedBytes),
      total_files_processed: this.#files,
      total_bytes_processed: Number(this.#bytes),
    }
  }
}

function formatMs(ms: number): string {
  return formatTimeNs(BigInt(Math.round(ms)) * 1_000_000n)
}
