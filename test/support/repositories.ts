import { createHash } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { systemTime, type Time } from '#base/time'
import type { Storage } from '#storage'
import { initRepository } from '../../src/vault/repository/open.ts'
import type { BlobSaver, Repository, Snapshot } from '../../src/vault/repository/repository.ts'
import { encodeTree, type TreeNode } from '../../src/vault/repository/tree-codec.ts'

export const password = 'p'
const signal = new AbortController().signal

/** The clock of the machine, but the wait while a new lock settles is none: here nobody else locks. */
export const hastyTime: Time = {
  now: () => systemTime.now(),
  monotonicMs: () => systemTime.monotonicMs(),
  sleep: async (ms, until) => {
    if (ms > 200) await systemTime.sleep(ms, until)
  },
}

/** Makes an empty repository whose password costs nothing to check. */
export async function makeRepository(storage: Storage): Promise<Repository> {
  return initRepository(storage, password, { signal, passwordCost: { n: 2, r: 1, p: 1 } })
}

/** Seeded bytes that do not compress. */
export function noise(seed: string, sizeBytes: number): Buffer {
  const parts: Buffer[] = []
  for (let at = 0; at < sizeBytes; at += 32) {
    parts.push(createHash('sha256').update(`${seed} ${at}`).digest())
  }
  return Buffer.concat(parts).subarray(0, sizeBytes)
}

const attributes = {
  mode: 0o644,
  mtimeNs: 1_500_000_000_000_000_000n,
  atimeNs: 1_500_000_000_000_000_000n,
  ctimeNs: 1_500_000_000_000_000_000n,
  uid: 0,
  gid: 0,
  inode: 1n,
  device: 1n,
  links: 1,
  xattrs: [],
}

/** A directory by name: files are their bytes. */
export type Folder = { readonly [name: string]: Buffer | Folder }

/** Stores a folder as its own snapshot, in packs and an index of its own. */
export async function saveFolder(
  repository: Repository,
  folder: Folder,
  facts: { readonly time: string; readonly hostname?: string; readonly tags?: readonly string[] },
): Promise<Snapshot> {
  await repository.loadIndex({ signal })
  await using saver = await repository.openSaver({ signal, workers: 1 })
  const tree = await saveTree(saver, { root: folder })
  await saver.finish()
  return await repository.saveSnapshot(
    { hostname: 'h', paths: ['/root'], ...facts, tree },
    { signal },
  )
}

async function saveTree(saver: BlobSaver, folder: Folder): Promise<string> {
  const nodes: TreeNode[] = []
  const names = Object.keys(folder).sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
  for (const text of names) {
    const name = Buffer.from(text)
    const item = folder[text] ?? {}
    if (Buffer.isBuffer(item)) {
      const read = async function* () {
        yield item
      }
      const { blobs, sizeBytes } = await saver.saveContent({ kind: 'stream', read })
      nodes.push({ ...attributes, kind: 'file', name, sizeBytes, content: blobs })
    } else {
      const subtree = await saveTree(saver, item)
      nodes.push({ ...attributes, mode: 0o755, kind: 'dir', name, subtree })
    }
  }
  return saver.saveBlob('tree', encodeTree(nodes))
}

/** Lays the objects of a store out as files, for stock tools. */
export async function writeObjects(storage: Storage, dir: string): Promise<void> {
  for (const [key, bytes] of await readObjects(storage)) {
    const path = join(dir, key)
    await mkdir(dirname(path), { recursive: true })
    await writeFile(path, bytes)
  }
}

/** All objects of a store with their bytes. */
export async function readObjects(storage: Storage): Promise<Map<string, Buffer>> {
  const objects = new Map<string, Buffer>()
  for await (const { key } of storage.list('')) objects.set(key, await storage.get(key))
  return objects
}
