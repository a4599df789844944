import { Fault } from '#base/faults'
import type { TreeEntry, Xattr } from '#change/tree'
import { parseTimeNs, unquoteName } from './go-text.ts'
import {
  checkName,
  goKinds,
  type NodeText,
  treeHead,
  type TreeNode,
  unixMode,
} from './tree-codec.ts'

/** Bytes of JSON that are parsed at once: bounds the memory that decoding takes beside the blob itself. */
const sliceBytes = 64 * 1024

/**
 * The nodes of a tree blob, checked: names are single path components in ascending order, ids are ids, a file
 * has content and a directory a subtree. Anything else is a `corrupt` Fault that names `what`.
 * Nodes are decoded as they are pulled, so a large tree never stands in memory as objects.
 */
export function* decodeTree(
  bytes: Buffer,
  what: string,
  /** Nodes come with their `text`, and so hold on to the blob. */
  options: { readonly withText?: boolean | undefined } = {},
): Generator<TreeNode, void, void> {
  let last: Buffer | undefined
  for (const { raw, text } of rawNodes(bytes, what)) {
    const decoded = decodeNode(raw, what)
    const node = options.withText && text ? { ...decoded, text } : decoded
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

type RawNode = { readonly raw: Raw; readonly text?: NodeText | undefined }

/** The node objects of the blob, parsed slice by slice. Unknown fields beside `nodes` are passed over. */
function* rawNodes(bytes: Buffer, what: string): Generator<RawNode, void, void> {
  if (bytes.length < treeHead.length || treeHead.compare(bytes, 0, treeHead.length) !== 0) {
    const tree = parseJson(bytes.toString('utf8'), what)
    const nodes = isRaw(tree) ? (tree['nodes'] ?? []) : undefined
    if (!Array.isArray(nodes)) throw bad(what, 'it is no tree')
    for (const node of nodes) yield { raw: checkRaw(node, what) }
    return
  }
  let start = treeHead.length
  while (bytes[start] !== 0x5d) {
    const ends: number[] = []
    const end = sliceEnd(bytes, start, ends, what)
    const nodes = parseJson(`[${bytes.toString('utf8', start, end)}]`, what)
    if (!Array.isArray(nodes)) throw bad(what, 'it is no tree')
    for (const [i, node] of nodes.entries()) {
      const raw = checkRaw(node, what)
      yield { raw, text: nodeText(bytes, i === 0 ? start : (ends[i - 1] ?? 0) + 1, ends[i]) }
    }
    start = bytes[end] === 0x2c ? end + 1 : end
    if (bytes[end] === 0x2c && bytes[start] === 0x5d) throw bad(what, 'a node is missing')
  }
  // What follows the nodes are closing brackets, or fields of a later version.
  parseJson(`{"nodes":[${bytes.toString('utf8', start, bytes.length)}`, what)
}

/** The node's text where it stands between commas alone, as all writers have it; `start` is behind the first of them. */
function nodeText(blob: Buffer, start: number, end: number | undefined): NodeText | undefined {
  const follows = blob[start - 1] === 0x2c || blob[start - 1] === 0x5b
  return follows && blob[start] === 0x7b && end !== undefined ? { blob, start, end } : undefined
}

function checkRaw(node: unknown, what: string): Raw {
  if (!isRaw(node)) throw bad(what, 'a node is no object')
  return node
}

/** Where a run of whole nodes from `start` ends: behind a closing brace of the outermost level. `ends` takes those of all. */
function sliceEnd(bytes: Buffer, start: number, ends: number[], what: string): number {
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
      if (depth > 0) continue
      ends.push(at + 1)
      if (at - start >= sliceBytes) return at + 1
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
