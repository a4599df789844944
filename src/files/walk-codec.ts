import { Reader, Writer } from '#base/bytes'
import { Fault } from '#base/faults'
import type { Content, Hole, TreeEntry, TreeEvent, Xattr } from '#change/tree'

/**
 * Events of a walk as bytes, on their way from the thread that walks to the one that asked: a batch is handed
 * over without copying, where objects would be cloned one by one. Never stored.
 */
const kinds = ['file', 'dir', 'symlink', 'dev', 'chardev', 'fifo', 'socket'] as const
const codeEnter = 0x10
const codeNode = 0x20
const codeLeave = 0x30
const codeTrouble = 0x40

export class EventWriter {
  readonly #users = new Set<string>()
  #writer = new Writer(64 * 1024)
  #count = 0

  get sizeBytes(): number {
    return this.#writer.size
  }

  get count(): number {
    return this.#count
  }

  add(event: TreeEvent): void {
    this.#count += 1
    switch (event.kind) {
      case 'enter':
        return this.#node(codeEnter, event.entry, event.path)
      case 'node':
        this.#node(codeNode, event.entry, event.path)
        if (event.entry.kind === 'file') this.#holes(event.content)
        return
      case 'leave':
        this.#writer.u8(codeLeave)
        return
      case 'trouble':
        return this.#trouble(event.path, event.error)
      default:
        event satisfies never
    }
  }

  /** The batch so far, in a buffer of its own; the writer starts the next one. */
  take(): ArrayBuffer {
    const bytes = this.#writer.done()
    const own = new ArrayBuffer(bytes.length)
    new Uint8Array(own).set(bytes)
    this.#writer = new Writer(64 * 1024)
    this.#count = 0
    return own
  }

  #node(code: number, entry: TreeEntry, path: Buffer): void {
    const writer = this.#writer
    writer.u8(code | kinds.indexOf(entry.kind))
    this.#bytes(path)
    this.#bytes(entry.name)
    writer.u16le(entry.mode)
    for (const ns of [entry.mtimeNs, entry.atimeNs, entry.ctimeNs])
      writer.u64le(BigInt.asUintN(64, ns))
    writer.u32le(entry.uid).u32le(entry.gid)
    // A name is sent the first time only.
    this.#name(`u${entry.uid}`, entry.user)
    this.#name(`g${entry.gid}`, entry.group)
    writer.u64le(entry.inode).u64le(entry.device).u32le(entry.links)
    writer.u16le(entry.xattrs.length)
    for (const { name, value } of entry.xattrs) {
      this.#bytes(Buffer.from(name))
      this.#bytes(value)
    }
    if (entry.kind === 'file') writer.u64le(entry.sizeBytes)
    else if (entry.kind === 'symlink') this.#bytes(entry.target)
    else if (entry.kind === 'dev' || entry.kind === 'chardev') writer.u64le(entry.rdev)
  }

  #holes(content: Content | undefined): void {
    const holes = content?.kind === 'path' ? content.holes : undefined
    this.#writer.u16le(holes?.length ?? 0)
    for (const { start, end } of holes ?? []) this.#writer.u64le(BigInt(start)).u64le(BigInt(end))
  }

  #name(key: string, name: string | undefined): void {
    const known = this.#users.has(key)
    this.#writer.u8(known ? 0 : 1)
    if (known) return
    this.#users.add(key)
    this.#bytes(Buffer.from(name ?? ''))
  }

  #trouble(path: Buffer, error: Error): void {
    this.#writer.u8(codeTrouble)
    this.#bytes(path)
    this.#bytes(Buffer.from(error instanceof Fault ? error.code : ''))
    this.#bytes(Buffer.from(error.message))
  }

  #bytes(bytes: Uint8Array): void {
    this.#writer.u32le(bytes.length).bytes(bytes)
  }
}

export class EventReader {
  readonly #names = new Map<string, string | undefined>();

  *read(batch: ArrayBuffer): Generator<TreeEvent, void, void> {
    const reader = new Reader(new Uint8Array(batch), 'a batch of the walk')
    while (reader.left > 0) yield this.#event(reader)
  }

  #event(reader: Reader): TreeEvent {
    const code = reader.u8()
    if (code === codeLeave) return { kind: 'leave' }
    const path = own(reader)
    if (code === codeTrouble) return { kind: 'trouble', path, error: errorOf(reader) }
    const entry = this.#entry(reader, kinds[code & 0x0f])
    if ((code & 0xf0) === codeEnter) return { kind: 'enter', entry, path }
    if (entry.kind !== 'file') return { kind: 'node', entry, path }
    return { kind: 'node', entry, path, content: { kind: 'path', path, holes: holesOf(reader) } }
  }

  #entry(reader: Reader, kind: (typeof kinds)[number] | undefined): TreeEntry {
    const name = own(reader)
    const mode = reader.u16le()
    const mtimeNs = BigInt.asIntN(64, reader.u64le())
    const atimeNs = BigInt.asIntN(64, reader.u64le())
    const ctimeNs = BigInt.asIntN(64, reader.u64le())
    const uid = reader.u32le()
    const gid = reader.u32le()
    const user = this.#name(reader, `u${uid}`)
    const group = this.#name(reader, `g${gid}`)
    const inode = reader.u64le()
    const device = reader.u64le()
    const links = reader.u32le()
    const xattrs = xattrsOf(reader)
    const times = { mtimeNs, atimeNs, ctimeNs }
    const attributes = { name, mode, ...times, uid, gid, user, group, inode, device, links, xattrs }
    switch (kind) {
      case 'file':
        return { ...attributes, kind, sizeBytes: reader.u64le() }
      case 'symlink':
        return { ...attributes, kind, target: own(reader) }
      case 'dev':
      case 'chardev':
        return { ...attributes, kind, rdev: reader.u64le() }
      case 'dir':
      case 'fifo':
      case 'socket':
        return { ...attributes, kind }
      case undefined:
        throw new Fault('protocol', 'read a batch of the walk: a node has no kind')
      default:
        return kind satisfies never
    }
  }

  #name(reader: Reader, key: string): string | undefined {
    if (reader.u8() === 1) this.#names.set(key, reader.text(reader.u32le()) || undefined)
    return this.#names.get(key)
  }
}

function holesOf(reader: Reader): readonly Hole[] | undefined {
  const count = reader.u16le()
  if (count === 0) return undefined
  const offset = () => Number(reader.u64le())
  return Array.from({ length: count }, () => ({ start: offset(), end: offset() }))
}

const noXattrs: readonly Xattr[] = []

function xattrsOf(reader: Reader): readonly Xattr[] {
  const count = reader.u16le()
  if (count === 0) return noXattrs
  return Array.from({ length: count }, () => ({ name: own(reader).toString(), value: own(reader) }))
}

/** A copy: the batch is large, and what outlives it would keep all of it. */
function own(reader: Reader): Buffer {
  return Buffer.from(reader.view(reader.u32le()))
}

function errorOf(reader: Reader): Error {
  const code = reader.text(reader.u32le())
  const message = reader.text(reader.u32le())
  return code === '' ? new Error(message) : new Fault(code as Fault['code'], message)
}
