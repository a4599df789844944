import { createReadStream, createWriteStream } from 'node:fs'
import { cp, mkdir, open, readdir, stat, symlink, truncate } from 'node:fs/promises'
import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import {
  type BlockWriter,
  type CreateInspector,
  inspectorScratchBytes,
  type Inspection,
} from '#base/blocks'
import type { BaseEntry, BaseFile, BaseReader, BaseSink } from '#engines'

/** A base backup kept as plain files in a directory, made from a parent's directory where one is given. */
export class DirectoryBase implements BaseSink, BaseReader {
  readonly path: string
  readonly #parent: string | undefined
  readonly patched: string[] = []
  readonly whole: string[] = []

  constructor(folder: string, parent?: DirectoryBase) {
    this.path = folder
    this.#parent = parent?.path
  }

  async file(
    name: string,
    entry: BaseEntry<'file'>,
    content: AsyncIterable<Buffer>,
  ): Promise<void> {
    const target = await this.#place(name)
    await pipeline(content, createWriteStream(target, { mode: entry.mode }))
    this.whole.push(name)
  }

  blocks(name: string, entry: BaseEntry<'file'>, inspection?: Inspection): BlockWriter {
    const parts: Buffer[] = []
    return {
      write: (bytes) => {
        parts.push(Buffer.from(bytes))
        return undefined
      },
      end: async () => {
        const bytes = Buffer.concat(parts)
        const file = [bytes].values()
        await this.file(
          name,
          entry,
          (async function* () {
            yield* file
          })(),
        )
        return { sizeBytes: bytes.length, said: inspection ? await inspect(bytes, inspection) : [] }
      },
    }
  }

  async patch(
    name: string,
    entry: BaseEntry<'file'>,
    extents: AsyncIterable<{ readonly offset: number; readonly bytes: Buffer }>,
  ): Promise<void> {
    const target = await this.#place(name)
    await cp(path.join(this.#parent ?? '', name), target)
    await truncate(target, Number(entry.sizeBytes))
    await using file = await open(target, 'r+')
    for await (const { offset, bytes } of extents) await file.write(bytes, 0, bytes.length, offset)
    this.patched.push(name)
  }

  async node(name: string, entry: BaseEntry<'dir' | 'symlink' | 'fifo' | 'socket'>): Promise<void> {
    const target = await this.#place(name)
    if (entry.kind === 'dir') await mkdir(target, { recursive: true, mode: entry.mode })
    if (entry.kind === 'symlink') await symlink(entry.target, target)
  }

  async *list(): AsyncGenerator<BaseFile, void, void> {
    for (const name of await this.#names()) {
      const { size } = await stat(path.join(this.path, name))
      yield { path: name, sizeBytes: BigInt(size) }
    }
  }

  async *read(name: string): AsyncGenerator<Buffer, void, void> {
    yield* createReadStream(path.join(this.path, name)) as AsyncIterable<Buffer>
  }

  async layOut(
    directory: string,
    options: { readonly map?: ((name: string) => string | undefined) | undefined },
  ): Promise<void> {
    const { map = (name: string) => name } = options
    for (const name of await this.#names('all')) {
      const mapped = map(name)
      if (mapped === undefined) continue
      const from = path.join(this.path, name)
      const to = path.join(directory, mapped)
      const isFolder = (await stat(from)).isDirectory()
      await mkdir(isFolder ? to : path.dirname(to), { recursive: true, mode: 0o700 })
      if (!isFolder) await cp(from, to)
    }
  }

  async #place(name: string): Promise<string> {
    const target = path.join(this.path, name)
    await mkdir(path.dirname(target), { recursive: true, mode: 0o700 })
    return target
  }

  async #names(which: 'files' | 'all' = 'files'): Promise<string[]> {
    const entries = await readdir(this.path, { recursive: true, withFileTypes: true })
    return entries
      .filter((entry) => which === 'all' || entry.isFile())
      .map((entry) => path.relative(this.path, path.join(entry.parentPath, entry.name)))
      .toSorted()
  }
}

declare const WebAssembly: {
  Memory: new (size: { initial: number }) => { readonly buffer: ArrayBuffer }
}
const blockBytes = 64 * 1024

/** As a saver's worker does it, in small blocks. */
async function inspect(bytes: Buffer, { module, setup }: Inspection): Promise<unknown[]> {
  const { createInspector } = (await import(module)) as { createInspector: CreateInspector }
  const memory = new WebAssembly.Memory({ initial: 3 })
  const look = createInspector({ memory, scratchAt: 0, scratchBytes: inspectorScratchBytes })
  const said: unknown[] = []
  for (let at = 0; at < bytes.length; at += blockBytes) {
    const block = bytes.subarray(at, at + blockBytes)
    Buffer.from(memory.buffer).set(block, 65_536)
    said.push(look(65_536, block.length, at, setup))
  }
  return said
}
