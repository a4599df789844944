import type { TreeEntry, Xattr } from '#change/tree'
import { assert, Fault } from '#base/faults'
import {
  escapeJson,
  escapeJsonBytes,
  formatTimeNs,
  parseTimeNs,
  quoteName,
  unquoteName,
} from './go-text.ts'

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
}

/** Bits of Go's `os.FileMode` (https://pkg.go.dev/io/fs#FileMode), which are not those of `st_mode`. */
const goSetuid = 1 << 23
const goSetgid = 1 << 22
const goSticky = 1 << 20
const goKinds: Readonly<Record<TreeEntry['kind'], number>> = {
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

function unixMode(bits: number): number {
  let mode = bits & 0o777
  if (bits & goSetuid) mode |= 0o4000
  if (bits & goSetgid) mode |= 0o2000
  if (bits & goSticky) mode |= 0o1000
  return mode
}

const head = Buffer.from('{"nodes":[')
const tail = Buffer.from(']}\n')
/** Encoded text is moved to the buffer whenever it is longer than this: short strings are cheap to grow. */
const pendingMax = 16 * 1024

/**
 * Builds one tree blob, node by node, in the very bytes that restic would write: equal trees get equal ids.
 * It holds encoded bytes only, so a directory of a million nodes costs what its blob takes.
 */
export class TreeBuilder {
  #bytes = Buffer.allocUnsafe(4096)
  #size = 0
  #pending = ''
  #last: Buffer | undefined
  #count = 0

  constructor() {
    head.copy(this.#bytes)
    this.#size = head.length
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
    this.#pending += this.#count === 0 ? encodeNode(node) : `,${encodeNode(node)}`
    this.#count += 1
    if (this.#pending.length > pendingMax) this.#flush()
  }

  /** The finished blob. The builder is used up. */
  done(): Buffer {
    this.#flush()
    this.#room(tail.length)
    tail.copy(this.#bytes, this.#size)
    return this.#bytes.subarray(0, this.#size + tail.length)
  }

  #flush(): void {
    this.#room(this.#pending.length * 3)
    this.#size += this.#bytes.write(this.#pending, this.#size)
    this.#pending = ''
  }

  #room(size: number): void {
    if (this.#size + size <= this.#bytes.length) return
    const grown = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, this.#size + size))
    this.#bytes.copy(grown, 0, 0, this.#size)
    this.#bytes = grown
  }
}

/** One tree blob of nodes in ascending byte order of their names. */
export function encodeTree(nodes: Iterable<TreeNode>): Buffer {
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
function checkName(name: Buffer): string | undefined {
  if (name.length === 0) return 'is empty'
  const text = name.length <= 2 ? name.toString('latin1') : ''
  if (text === '.' || text === '..') return 'leads elsewhere'
  if (name.includes(0x2f)) return 'has a slash'
  return name.includes(0) ? 'has a zero byte' : undefined
}

/** Bytes of JSON that are parsed at once: bounds the memory that decoding takes beside the blob itself. */
const sliceBytes = 64 * 1024

/**
 * The nodes of a tree blob, checked: names are single path components in ascending order, ids are ids, a file
 * has content and a directory a subtree. Anything else is a `corrupt` Fault that names `what`.
 * Nodes are decoded as they are pulled, so a large tree never stands in memory as objects.
 */
export function* decodeTree(bytes: Buffer, what: string): Generator<TreeNode, void, void> {
  let last: Buffer | undefined
  for (const raw of rawNodes(bytes, what)) {
    const node = decodeNode(raw, what)
    if (last && Buffer.compare(last, node.name) >= 0) {
      throw bad(what, `${show(node.name)} does not sort behind ${show(last)}`)
    }
    last = node.name
    yield node
  }
}

function bad(what: string, why: string, cause?: unknown): Fault {
  return new Fault('corrupt', `decode ${what}: ${why}`, { cause })
}

function show(name: Buffer): string {
  return JSON.stringify(name.toString('utf8'))
}

type Raw = Readonly<Record<string, unknown>>

function isRaw(value: unknown): value is Raw {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The node objects of the blob, parsed slice by slice. Unknown fields beside `nodes` are passed over. */
function* rawNodes(bytes: Buffer, what: string): Generator<Raw, void, void> {
  if (bytes.length < head.length || head.compare(bytes, 0, head.length) !== 0) {
    const tree = parseJson(bytes.toString('utf8'), what)
    const nodes = isRaw(tree) ? (tree['nodes'] ?? []) : undefined
    if (!Array.isArray(nodes)) throw bad(what, 'it is no tree')
    yield* checkRaw(nodes, what)
    return
  }
  let start = head.length
  while (bytes[start] !== 0x5d) {
    const end = sliceEnd(bytes, start, what)
    const nodes = parseJson(`[${bytes.toString('utf8', start, end)}]`, what)
    if (!Array.isArray(nodes)) throw bad(what, 'it is no tree')
    yield* checkRaw(nodes, what)
    start = bytes[end] === 0x2c ? end + 1 : end
    if (bytes[end] === 0x2c && bytes[start] === 0x5d) throw bad(what, 'a node is missing')
  }
  // What follows the nodes are closing brackets, or fields of a later version.
  parseJson(`{"nodes":[${bytes.toString('utf8', start, bytes.length)}`, what)
}

function* checkRaw(nodes: readonly unknown[], what: string): Generator<Raw, void, void> {
  for (const node of nodes) {
    if (!isRaw(node)) throw bad(what, 'a node is no object')
    yield node
  }
}

/** Where a run of whole nodes from `start` ends: behind a closing brace of the outermost level. */
function sliceEnd(bytes: Buffer, start: number, what: string): number {
  let depth = 0
  let inText = false
  for (let at = start; at < bytes.length; at++) {
    const byte = bytes[at]
    if (inText) {
      if (byte === 0x5c) at += 1
      else if (byte === 0x22) inText = false
    } else if (byte === 0x22) inText = true
    else if (byte === 0x7b || byte === 0x5b) depth += 1
    else if (byte === 0x7d || byte === 0x5d) {
      depth -= 1
      if (depth < 0) return at
      if (depth === 0 && at - start >= sliceBytes) return at + 1
    }
  }
  throw bad(what, 'it ends within a node')
}

/** A number of so many digits may be beyond 2^53: it is then read from its text. Digits follow a colon only as numbers. */
const longNumber = /:\d{16}/

function parseJson(text: string, what: string): unknown {
  try {
    return longNumber.test(text) ? JSON.parse(text, keepLongNumbers) : JSON.parse(text)
  } catch (error) {
    throw bad(what, 'it is no JSON', error)
  }
}

function keepLongNumbers(_key: string, value: unknown, context?: { source?: string }): unknown {
  const source = context?.source
  const long = typeof value === 'number' && source !== undefined && /^\d{16,20}$/.test(source)
  return long ? BigInt(source) : value
}

const kinds: readonly unknown[] = Object.keys(goKinds) satisfies readonly string[]

function isKind(value: unknown): value is TreeEntry['kind'] {
  return kinds.includes(value)
}

function decodeNode(raw: Raw, what: string): TreeNode {
  const name = typeof raw['name'] === 'string' ? unquoteName(raw['name']) : undefined
  const wrongName = name ? checkName(name) : 'is not quoted'
  if (!name || wrongName) throw bad(what, `name ${JSON.stringify(raw['name'])} ${wrongName}`)
  const kind = raw['type']
  if (!isKind(kind)) throw bad(what, `node ${show(name)} has the type ${JSON.stringify(kind)}`)
  const fields = new Fields(raw, (field) => bad(what, `node ${show(name)} has a bad ${field}`))
  const { user, group, error } = fields.texts()
  const attributes = {
    name,
    mode: unixMode(fields.small('mode')),
    ...fields.times(),
    uid: fields.small('uid'),
    gid: fields.small('gid'),
    ...(user === undefined ? undefined : { user }),
    ...(group === undefined ? undefined : { group }),
    inode: fields.big('inode'),
    device: fields.big('device_id'),
    links: Number(fields.big('links')),
    xattrs: fields.xattrs(),
    ...(error === undefined ? undefined : { error }),
    ...fields.generic(),
  }
  switch (kind) {
    case 'file':
      return { ...attributes, kind, sizeBytes: fields.big('size'), content: fields.content() }
    case 'dir':
      return { ...attributes, kind, subtree: fields.subtree() }
    case 'symlink':
      return { ...attributes, kind, target: fields.target() }
    case 'dev':
    case 'chardev':
      return { ...attributes, kind, rdev: fields.big('device') }
    case 'fifo':
    case 'socket':
      return { ...attributes, kind }
  }
}

const u64Max = 2n ** 64n - 1n
const blobId = /^[0-9a-f]{64}$/
const base64 = /^[A-Za-z0-9+/]*={0,2}$/
const noXattrs: readonly Xattr[] = []

/** Reads one node's fields by type; what is no such value is the `fail` Fault. */
class Fields {
  readonly #raw: Raw
  readonly #fail: (field: string) => Fault

  constructor(raw: Raw, fail: (field: string) => Fault) {
    this.#raw = raw
    this.#fail = fail
  }

  small(field: string): number {
    const value = this.#raw[field] ?? 0
    if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < 2 ** 32) {
      return value
    }
    throw this.#fail(field)
  }

  big(field: string): bigint {
    const value = this.#raw[field] ?? 0
    if (typeof value === 'bigint' && value <= u64Max) return value
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return BigInt(value)
    throw this.#fail(field)
  }

  times(): { readonly mtimeNs: bigint; readonly atimeNs: bigint; readonly ctimeNs: bigint } {
    const { mtime, atime, ctime } = this.#raw
    const mtimeNs = this.#time('mtime', mtime)
    const atimeNs = atime === mtime ? mtimeNs : this.#time('atime', atime)
    const ctimeNs = ctime === mtime ? mtimeNs : this.#time('ctime', ctime)
    return { mtimeNs, atimeNs, ctimeNs }
  }

  #time(field: string, value: unknown): bigint {
    const ns = typeof value === 'string' ? parseTimeNs(value) : undefined
    if (ns === undefined) throw this.#fail(field)
    return ns
  }

  texts(): { readonly [field in 'user' | 'group' | 'error']: string | undefined } {
    return { user: this.#text('user'), group: this.#text('group'), error: this.#text('error') }
  }

  #text(field: string): string | undefined {
    const value = this.#raw[field] ?? undefined
    if (value === undefined || typeof value === 'string') return value
    throw this.#fail(field)
  }

  content(): readonly string[] {
    const value = this.#raw['content']
    if (!Array.isArray(value)) throw this.#fail('content')
    const ids: readonly unknown[] = value
    if (!ids.every((id): id is string => typeof id === 'string' && blobId.test(id))) {
      throw this.#fail('content')
    }
    return ids
  }

  subtree(): string {
    const value = this.#raw['subtree']
    if (typeof value === 'string' && blobId.test(value)) return value
    throw this.#fail('subtree')
  }

  target(): Buffer {
    const raw = this.#raw['linktarget_raw'] ?? undefined
    return raw === undefined
      ? Buffer.from(this.#text('linktarget') ?? '', 'utf8')
      : this.#base64('linktarget_raw', raw)
  }

  #base64(field: string, value: unknown): Buffer {
    const sound = typeof value === 'string' && value.length % 4 === 0 && base64.test(value)
    if (!sound) throw this.#fail(field)
    return Buffer.from(value, 'base64')
  }

  xattrs(): readonly Xattr[] {
    const value = this.#raw['extended_attributes'] ?? undefined
    if (value === undefined) return noXattrs
    if (!Array.isArray(value)) throw this.#fail('extended_attributes')
    return value.map((item: unknown) => {
      if (!isRaw(item) || typeof item['name'] !== 'string') throw this.#fail('extended_attributes')
      return {
        name: item['name'],
        value: this.#base64('extended_attributes', item['value'] ?? ''),
      }
    })
  }

  generic(): { readonly genericAttributes: Raw } | undefined {
    const value = this.#raw['generic_attributes'] ?? undefined
    if (value === undefined) return undefined
    if (!isRaw(value)) throw this.#fail('generic_attributes')
    return { genericAttributes: value }
  }
}
