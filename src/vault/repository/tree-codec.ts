import type { TreeEntry, Xattr } from '#change/tree'
import { assert, Fault } from '#base/faults'
import { escapeJson, escapeJsonBytes, formatTimeNs, quoteName } from './go-text.ts'
import { blobBytesMax } from './limits.ts'

/**
 * A node of a tree blob: `content` of a file are the ids of its data blobs in order, `subtree` of a directory is
 * the id of its tree blob. Restic itself keeps no sockets.
 */
export type TreeNode = TreeEntry & {
  readonly content?: readonly string[] | undefined
  readonly subtree?: string | undefined
  /** What went wrong when the node was read, as its writer noted it. */
  readonly error?: string | undefined
  /** Attributes of other systems (Windows), kept as they are. */
  readonly genericAttributes?: Readonly<Record<string, unknown>> | undefined
  /** Where its JSON stands, if the decoder was asked for that: a tree takes it over as it is. */
  readonly text?: NodeText | undefined
}

/** A part of a tree blob; holds on to all of that. */
export type NodeText = { readonly blob: Buffer; readonly start: number; readonly end: number }

/** Bits of Go's `os.FileMode` (https://pkg.go.dev/io/fs#FileMode), which are not those of `st_mode`. */
const goSetuid = 1 << 23
const goSetgid = 1 << 22
const goSticky = 1 << 20
export const goKinds: Readonly<Record<TreeEntry['kind'], number>> = {
  file: 0,
  dir: 2 ** 31,
  symlink: 2 ** 27,
  dev: 2 ** 26,
  chardev: 2 ** 26 + 2 ** 21,
  fifo: 2 ** 25,
  socket: 2 ** 24,
}

function goMode(kind: TreeEntry['kind'], mode: number): number {
  let bits = goKinds[kind] + (mode & 0o777)
  if (mode & 0o4000) bits += goSetuid
  if (mode & 0o2000) bits += goSetgid
  if (mode & 0o1000) bits += goSticky
  return bits
}

export function unixMode(bits: number): number {
  let mode = bits & 0o777
  if (bits & goSetuid) mode |= 0o4000
  if (bits & goSetgid) mode |= 0o2000
  if (bits & goSticky) mode |= 0o1000
  return mode
}

export const treeHead = Buffer.from('{"nodes":[')
const tail = Buffer.from(']}\n')
/** Encoded text is moved to the buffer whenever it is longer than this: short strings are cheap to grow. */
const pendingMax = 16 * 1024

/** The memory of a larger tree grows in place, by an eighth: copies of it would lie about until they are collected. */
const copiedBytesMax = 8 * 1024 * 1024

/**
 * Builds one tree blob, node by node, in the very bytes that restic would write: equal trees get equal ids.
 * It holds encoded bytes only, so a directory of a million nodes costs what its blob takes.
 */
export class TreeBuilder {
  #bytes: Buffer<ArrayBuffer> = Buffer.allocUnsafe(4096)
  /** What `bytes` is a part of, once it grows in place. */
  #memory: ArrayBuffer | undefined
  #size = 0
  #pending = ''
  #last: Buffer | undefined
  #count = 0

  constructor() {
    treeHead.copy(this.#bytes)
    this.#size = treeHead.length
  }

  /** Nodes added so far. */
  get count(): number {
    return this.#count
  }

  /** Adds a node; its name must sort behind the last one's, byte by byte. */
  add(node: TreeNode): void {
    const { name } = node
    assert(checkName(name) === undefined, "a node's name is one path component")
    assert(
      !this.#last || Buffer.compare(this.#last, name) < 0,
      'nodes are added in ascending order of their names',
    )
    this.#last = name
    if (this.#count > 0) this.#pending += ','
    this.#count += 1
    if (node.text) this.#copy(node.text)
    else this.#pending += encodeNode(node)
    if (this.#pending.length > pendingMax) this.#flush()
  }

  /** The finished blob. The builder is used up. */
  done(): Buffer<ArrayBuffer> {
    this.#flush()
    this.#room(tail.length)
    tail.copy(this.#bytes, this.#size)
    const blob = this.#bytes.subarray(0, this.#size + tail.length)
    // Who still holds the builder does not hold the blob.
    this.#bytes = Buffer.alloc(0)
    this.#memory = undefined
    return blob
  }

  #copy({ blob, start, end }: NodeText): void {
    this.#flush()
    this.#room(end - start)
    this.#size += blob.copy(this.#bytes, this.#size, start, end)
  }

  #flush(): void {
    if (this.#pending === '') return
    this.#room(this.#pending.length * 3)
    this.#size += this.#bytes.write(this.#pending, this.#size)
    this.#pending = ''
  }

  #room(size: number): void {
    const needed = this.#size + size
    if (needed <= this.#bytes.length) return
    this.#bytes = needed > copiedBytesMax ? this.#grownInPlace(needed) : this.#copied(needed)
  }

  #copied(needed: number): Buffer<ArrayBuffer> {
    const grown = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, needed))
    this.#bytes.copy(grown, 0, 0, this.#size)
    return grown
  }

  #grownInPlace(needed: number): Buffer<ArrayBuffer> {
    if (needed > blobBytesMax)
      throw new Fault('unsupported', `write a tree of ${this.#count} nodes: it takes over 1 GiB`, {
        hint: 'Spread the files of the directory over several ones, or leave it out.',
      })
    const sizeBytes = Math.min(Math.ceil(needed * 1.125), blobBytesMax)
    this.#memory ??= new ArrayBuffer(0, { maxByteLength: blobBytesMax })
    const isFirst = this.#memory.byteLength === 0
    this.#memory.resize(sizeBytes)
    const grown = Buffer.from(this.#memory, 0, sizeBytes)
    if (isFirst) this.#bytes.copy(grown, 0, 0, this.#size)
    return grown
  }
}

/** One tree blob of nodes in ascending byte order of their names. */
export function encodeTree(nodes: Iterable<TreeNode>): Buffer<ArrayBuffer> {
  const builder = new TreeBuilder()
  for (const node of nodes) builder.add(node)
  return builder.done()
}

/** The node's JSON: fields in restic's order, those that are empty left out. */
function encodeNode(node: TreeNode): string {
  const { kind } = node
  const mode = goMode(kind, node.mode)
  const mtime = formatTimeNs(node.mtimeNs)
  const atime = node.atimeNs === node.mtimeNs ? mtime : formatTimeNs(node.atimeNs)
  const ctime = node.ctimeNs === node.mtimeNs ? mtime : formatTimeNs(node.ctimeNs)
  let json = `{"name":"${quoteName(node.name)}","type":"${kind}"`
  if (mode !== 0) json += `,"mode":${mode}`
  json += `,"mtime":"${mtime}","atime":"${atime}","ctime":"${ctime}"`
  json += `,"uid":${node.uid},"gid":${node.gid}`
  if (node.user) json += `,"user":"${escapeJson(node.user)}"`
  if (node.group) json += `,"group":"${escapeJson(node.group)}"`
  if (node.inode !== 0n) json += `,"inode":${node.inode}`
  if (node.device !== 0n) json += `,"device_id":${node.device}`
  if (kind === 'file' && node.sizeBytes !== 0n) json += `,"size":${node.sizeBytes}`
  if (hasLinks(kind) && node.links !== 0) json += `,"links":${node.links}`
  if (kind === 'symlink' && node.target.length > 0) json += encodeTarget(node.target)
  if (node.xattrs.length > 0)
    json += `,"extended_attributes":[${node.xattrs.map(encodeXattr).join(',')}]`
  if (node.genericAttributes) json += encodeGeneric(node.genericAttributes)
  if ((kind === 'dev' || kind === 'chardev') && node.rdev !== 0n) json += `,"device":${node.rdev}`
  json += encodeContent(node)
  if (node.subtree !== undefined) json += `,"subtree":"${node.subtree}"`
  if (node.error) json += `,"error":"${escapeJson(node.error)}"`
  return `${json}}`
}

/** Restic notes the count of links of these kinds only. */
function hasLinks(kind: TreeEntry['kind']): boolean {
  return kind === 'file' || kind === 'symlink' || kind === 'dev' || kind === 'chardev'
}

function encodeContent({ kind, content }: TreeNode): string {
  assert(kind !== 'file' || content !== undefined, 'a file has content')
  if (content === undefined) return ',"content":null'
  return content.length === 0 ? ',"content":[]' : `,"content":["${content.join('","')}"]`
}

/** A target that is no UTF-8 is written twice: for readers older than restic 0.16, and truly. */
function encodeTarget(target: Buffer): string {
  const { text, exact } = escapeJsonBytes(target)
  return `,"linktarget":"${text}"${exact ? '' : `,"linktarget_raw":"${target.toString('base64')}"`}`
}

function encodeXattr({ name, value }: Xattr): string {
  return `{"name":"${escapeJson(name)}","value":"${value.toString('base64')}"}`
}

function encodeGeneric(attributes: Readonly<Record<string, unknown>>): string {
  const parts = Object.keys(attributes)
    .sort()
    .map((key) => `"${escapeJson(key)}":${escapeMarkup(JSON.stringify(attributes[key]))}`)
  return parts.length === 0 ? '' : `,"generic_attributes":{${parts.join(',')}}`
}

function escapeMarkup(json: string): string {
  return json.replace(
    /[<>&\u2028\u2029]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

/** What makes bytes unfit as the name of a node; undefined when they are fit. */
export function checkName(name: Buffer): string | undefined {
  if (name.length === 0) return 'is empty'
  const text = name.length <= 2 ? name.toString('latin1') : ''
  if (text === '.' || text === '..') return 'leads elsewhere'
  if (name.includes(0x2f)) return 'has a slash'
  return name.includes(0) ? 'has a zero byte' : undefined
}
