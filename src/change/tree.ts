/** What every node of a file tree bears. Names are bytes: not every file name is UTF-8. */
type Attributes = {
  /** One path component. */
  readonly name: Buffer
  /** Permission bits with setuid, setgid and sticky: `st_mode & 0o7777`. */
  readonly mode: number
  /** Nanoseconds since 1970. */
  readonly mtimeNs: bigint
  readonly atimeNs: bigint
  readonly ctimeNs: bigint
  readonly uid: number
  readonly gid: number
  readonly user?: string | undefined
  readonly group?: string | undefined
  readonly inode: bigint
  readonly device: bigint
  readonly links: number
  readonly xattrs: readonly Xattr[]
}

export type Xattr = { readonly name: string; readonly value: Buffer }

/** One node of a file tree. */
export type TreeEntry = Attributes &
  (
    | { readonly kind: 'file'; readonly sizeBytes: bigint }
    | { readonly kind: 'dir' | 'fifo' | 'socket' }
    | { readonly kind: 'symlink'; readonly target: Buffer }
    /** Block and character devices; `rdev` is the device that the node stands for. */
    | { readonly kind: 'dev' | 'chardev'; readonly rdev: bigint }
  )

/** A node whose name is told beside it, in a path. */
export type Nameless<Entry> = Entry extends TreeEntry ? Omit<Entry, 'name'> : never

/** A range of a file that holds no data and reads as zeroes. */
export type Hole = { readonly start: number; readonly end: number }

/** Where the bytes of a file come from: a path that a worker reads by itself, or a stream. */
export type Content =
  | {
      readonly kind: 'path'
      readonly path: Buffer
      /** The large holes, ascending: they need not be read. */
      readonly holes?: readonly Hole[] | undefined
    }
  | { readonly kind: 'stream'; readonly read: () => AsyncIterable<Buffer> }

/**
 * A walk through a tree, depth first, the nodes of a directory in ascending byte order of their names:
 * `enter` a directory, its nodes, `leave` it. A node that cannot be read is a `trouble`, and the walk goes on.
 */
export type TreeEvent =
  | { readonly kind: 'enter'; readonly entry: TreeEntry; readonly path: Buffer }
  | {
      readonly kind: 'node'
      readonly entry: TreeEntry
      readonly path: Buffer
      readonly content?: Content
    }
  | { readonly kind: 'leave' }
  | { readonly kind: 'trouble'; readonly path: Buffer; readonly error: Error }

/** A file tree to be read once. */
export interface TreeSource {
  walk(options: { readonly signal: AbortSignal }): AsyncIterable<TreeEvent>
}

/**
 * What `prepare` found in a node's place:
 * `new`: the node was made; a file has its size and reads as zeroes.
 * `present`: a file was there; its bytes may be read, compared and overwritten.
 * `same`: a file was there that is taken to hold the right bytes; only `finish` is due.
 * `kept`: something was there that is to be left as it is, attributes too.
 */
export type Prepared = 'new' | 'present' | 'same' | 'kept'

/** An open file of a target. It is not closed before `release`, which is called once. */
export type HeldFile = {
  readonly descriptor: number
  /** What to throw of an error that writing to the descriptor met. */
  fault(error: unknown): unknown
  release(): void
}

/**
 * Where a tree is laid out again. All paths are relative to the target's root, components joined by `/`.
 * The order of calls: `prepare` (or `link`) of every node, parents first; `write` and `zero` of file bytes in any
 * order and in parallel; `finish` of every node, children before parents; `flush`. Nothing is ever written
 * through a symlink. Throws `full` when there is no room, `refused` where a symlink stands in the way of a path,
 * `exists` when a directory stands where a file should, `io` for what else the system refuses.
 */
export interface TreeTarget {
  /** Makes the node: directories, links, devices; a file gets its size. */
  prepare(
    path: Buffer,
    entry: TreeEntry,
    options: { readonly signal: AbortSignal },
  ): Promise<Prepared>
  /** Makes the node another name of a file laid out before. */
  link(path: Buffer, existing: Buffer): Promise<void>
  /** Reads what stands in the file now; for comparing before overwriting. Short at the file's end. */
  read(path: Buffer, offset: number, sizeBytes: number): Promise<Buffer>
  write(path: Buffer, offset: number, bytes: Uint8Array): Promise<void>
  /**
   * A file that was made anew and reads as zeroes where it was not written, held open for writing by another thread;
   * undefined where bytes must pass through `write` and `zero`, or the target is no local one.
   */
  hold?(path: Buffer): HeldFile | undefined
  /** Makes the range read as zeroes; a hole where the target keeps such. */
  zero(path: Buffer, offset: number, sizeBytes: number): Promise<void>
  /** Gives the node its owner, mode, xattrs and times, and closes what is open of it. */
  finish(path: Buffer, entry: TreeEntry): Promise<void>
  /** Moves a file whose right bytes could not be had out of the way, so that nobody takes it for whole. */
  spoil(path: Buffer): Promise<void>
  /** Removes from the directory, with all below, what `keep` does not want; returns the paths removed. */
  retain(path: Buffer, keep: (name: Buffer) => boolean): Promise<Buffer[]>
  /** Everything laid out so far is on the disk when it returns. */
  flush(): Promise<void>
}
