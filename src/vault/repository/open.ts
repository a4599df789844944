import { availableParallelism } from 'node:os'
import { Fault, isFault } from '#base/faults'
import type { Storage } from '#storage'
import { sha256Hex, takeId } from './blob-id.ts'
import { BlobOpener } from './blob-opener.ts'
import { configKey, createConfig, decodeConfig, encodeConfig } from './config.ts'
import { EnvelopeCipher, type EnvelopeKeys } from './crypto.ts'
import { BlobIndex } from './index/blob-index.ts'
import { decodeIndex } from './index/index-file.ts'
import { Kernels } from './kernels.ts'
import {
  createMasterKeys,
  formatMasterKeys,
  type KnownKeys,
  listKeys,
  openKeys,
  recallKeys,
  saveKey,
  type PasswordCost,
} from './keys.ts'
import { fileBytesMax } from './limits.ts'
import { BlobOpeners } from './blob-openers.ts'
import { loadBlob, loadBlobs } from './loader.ts'
import { type LockWait, lockRepository } from './lock.ts'
import { decodePack, readPackHeader } from './pack.ts'
import { openPackProver, type PackProver } from './pack-prover.ts'
import type {
  AddKeyOptions,
  BlobSaver,
  BlobType,
  IndexedPack,
  JsonFolder,
  PackedBlob,
  Repository,
  RepositoryKey,
  RepositoryLock,
  Snapshot,
  StoredFile,
} from './repository.ts'
import { openSaver } from './saver.ts'
import { encodeSnapshot, loadSnapshots } from './snapshots.ts'
import { listFiles, loadJson, loadJsonBytes, readFile, saveJson } from './stored-files.ts'

type Options = { readonly signal: AbortSignal }

/** Makes an empty repository, version 2; throws `exists` where one is already. */
export async function initRepository(
  storage: Storage,
  password: string,
  options: Options & {
    readonly passwordCost?: PasswordCost | undefined
    /** A known polynomial makes the same chunks as another repository that has it. */
    readonly polynomial?: bigint | undefined
  },
): Promise<Repository> {
  const { signal, passwordCost } = options
  const kernels = new Kernels()
  const { master, keyId } =
    (await resumeMaking(storage, password, { signal, kernels })) ??
    (await makeKey(storage, password, { signal, kernels, cost: passwordCost }))
  const cipher = new EnvelopeCipher(master, kernels)
  const config = createConfig(options.polynomial)
  // The config comes last: without it there is no repository, and a torn beginning can be begun again.
  await storage.put(configKey, encodeConfig(config, cipher), {
    signal,
    ...(storage.can.conditionalPut ? { ifAbsent: true } : {}),
  })
  return new OpenRepository({ storage, kernels, cipher, master, config, keyId, passwordCost })
}

async function makeKey(
  storage: Storage,
  password: string,
  options: Options & { readonly kernels: Kernels; readonly cost: PasswordCost | undefined },
): Promise<OpenedKey> {
  const master = createMasterKeys()
  return { master, keyId: await saveKey(storage, master, password, options) }
}

type OpenedKey = Awaited<ReturnType<typeof openKeys>>

/** The key of a making that was broken off before the config; undefined where nothing is. Refuses any other repository. */
async function resumeMaking(
  storage: Storage,
  password: string,
  options: Options & { readonly kernels: Kernels },
): Promise<OpenedKey | undefined> {
  const { signal } = options
  const config = await storage.stat(configKey, { signal })
  if (config) {
    throw new Fault('exists', `make repository in ${storage.url}: there is one already`, {
      hint: 'Choose another folder or bucket, or use the one that is there.',
    })
  }
  const keys = await listFiles(storage, 'keys', { signal })
  if (keys.length === 0) return undefined
  const holds = await Promise.all(contents.map((prefix) => hasAny(storage, prefix, signal)))
  if (keys.length > 1 || holds.includes(true)) {
    throw new Fault('exists', `make repository in ${storage.url}: it holds keys but no config`, {
      hint: 'The config of a repository was lost here: bring it back from a copy of the vault.',
    })
  }
  try {
    return await openKeys(storage, password, options)
  } catch (error) {
    if (!isFault(error, 'wrong-key', 'corrupt')) throw error
    throw new Fault('exists', `make repository in ${storage.url}: its making was broken off`, {
      hint: 'Go on with the password that it was begun with, or remove keys/, which holds nothing else.',
      cause: error,
    })
  }
}

/** What a repository holds once it was used. */
const contents = ['data/', 'index/', 'snapshots/']

async function hasAny(storage: Storage, prefix: string, signal: AbortSignal): Promise<boolean> {
  for await (const _ of storage.list(prefix, { signal })) return true
  return false
}

/**
 * Opens a repository with one of its passwords. Throws `missing` where none is, `wrong-key` when no key
 * opens, `unsupported` when its version is unknown. Loads no index yet. `known` spares the derivation from the
 * password, as long as the key file that it names is there.
 */
export async function openRepository(
  storage: Storage,
  password: string,
  options: Options & {
    readonly passwordCost?: PasswordCost | undefined
    readonly known?: KnownKeys | undefined
    readonly lockWait?: LockWait | undefined
  },
): Promise<Repository> {
  const { signal, passwordCost, known, lockWait } = options
  const facts = await storage.stat(configKey, { signal })
  if (!facts) {
    throw new Fault('missing', `open repository in ${storage.url}: there is no config`, {
      hint: 'Make one with `redoubt vault init`, or check the URL.',
    })
  }
  if (facts.sizeBytes > fileBytesMax) {
    throw new Fault('corrupt', `read config: ${facts.sizeBytes} bytes exceed ${fileBytesMax}`)
  }
  const kernels = new Kernels()
  const { keyId, master } =
    (known && (await recallKeys(storage, known, { signal }))) ??
    (await openKeys(storage, password, { signal, kernels }))
  const cipher = new EnvelopeCipher(master, kernels)
  const config = decodeConfig(await storage.get(configKey, { signal }), cipher)
  const parts = { storage, kernels, cipher, master, config, keyId, passwordCost, lockWait }
  return new OpenRepository(parts)
}

/** At most two: each takes some 120 MiB, and a process shall stay below 512 MiB unless told otherwise. */
function defaultWorkers(): number {
  return Math.min(availableParallelism(), 2)
}

type Parts = {
  readonly storage: Storage
  readonly kernels: Kernels
  readonly cipher: EnvelopeCipher
  readonly master: EnvelopeKeys
  readonly config: ReturnType<typeof createConfig>
  readonly keyId: string
  /** What new keys cost; other than the default in tests only. */
  readonly passwordCost: PasswordCost | undefined
  readonly lockWait?: LockWait | undefined
}

class OpenRepository implements Repository {
  readonly storage: Storage
  readonly keyId: string
  readonly #parts: Parts
  readonly #index = new BlobIndex()
  readonly #opener: BlobOpener
  #openers: BlobOpeners | undefined
  /** Index files whose packs are in the index. */
  #loaded = new Set<string>()

  constructor(parts: Parts) {
    this.storage = parts.storage
    this.keyId = parts.keyId
    this.#parts = parts
    this.#opener = new BlobOpener(parts.cipher)
  }

  get id(): string {
    return this.#parts.config.id
  }

  get version(): 1 | 2 {
    return this.#parts.config.version
  }

  get masterKeys(): string {
    return formatMasterKeys(this.#parts.master)
  }

  async lock(
    kind: 'shared' | 'exclusive',
    options: Parameters<Repository['lock']>[1],
  ): Promise<RepositoryLock> {
    return lockRepository(this, kind, { wait: this.#parts.lockWait, ...options })
  }

  async loadIndex({ signal, onDamaged }: Parameters<Repository['loadIndex']>[0]): Promise<void> {
    const files = await this.listFiles('index', { signal })
    const present = new Set(files.map((file) => file.id))
    if ([...this.#loaded].some((id) => !present.has(id))) {
      // Somebody removed index files, and perhaps packs: begin anew.
      this.#index.clear()
      this.#loaded = new Set()
    }
    for (const file of files) {
      if (this.#loaded.has(file.id)) continue
      try {
        const bytes = await loadJsonBytes(this.#parts, 'index', file, { signal })
        this.#index.addFile(bytes, `index/${file.id}`)
        this.#loaded.add(file.id)
      } catch (error) {
        if (!onDamaged || !isFault(error, 'corrupt', 'missing')) throw error
        onDamaged(file.id, error)
      }
    }
  }

  async loadIndexFile(
    file: { readonly id: string; readonly sizeBytes?: number | undefined },
    options: Options,
  ): Promise<IndexedPack[]> {
    return decodeIndex(await this.loadJson('index', file, options), `index/${file.id}`)
  }

  has(type: BlobType, id: string) {
    return this.#index.has(type, id)
  }

  find(type: BlobType, id: string) {
    return this.#index.find(type, id)
  }

  findAll(type: BlobType, id: string) {
    return this.#index.findAll(type, id)
  }

  blobs() {
    return this.#index.entries()
  }

  get blobCount(): number {
    return this.#index.count
  }

  async openSaver({
    signal,
    compression = 'auto',
    workers = defaultWorkers(),
  }: Parameters<Repository['openSaver']>[0]): Promise<BlobSaver> {
    this.#refuseOldVersion('write to')
    return openSaver({
      storage: this.storage,
      index: this.#index,
      keys: this.#parts.master,
      signal,
      polynomial: this.#parts.config.polynomial,
      saveIndex: async (text) => {
        this.#loaded.add(await this.saveJson('index', text, { signal }))
      },
      mode: compression,
      workers: Math.max(1, workers),
    })
  }

  #refuseOldVersion(doing: string): void {
    if (this.version === 2) return
    throw new Fault('unsupported', `${doing} repository ${this.id.slice(0, 8)}: it has version 1`, {
      hint: 'Bring it to version 2 with `restic migrate upgrade_repo_v2`, or copy it to a new vault.',
    })
  }

  async loadBlob(type: BlobType, id: string, { signal }: Options): Promise<Buffer> {
    return loadBlob(this.#source(), type, id, signal)
  }

  async loadBlobs(
    ids: Iterable<string>,
    { width = 4, ...options }: Parameters<Repository['loadBlobs']>[1],
    visit: (id: string, plain: Buffer) => Promise<void>,
  ): Promise<void> {
    await loadBlobs(this.#source(), ids, { ...options, width }, visit)
  }

  #source() {
    return {
      storage: this.storage,
      index: this.#index,
      opener: this.#opener,
      openers: () => (this.#openers ??= new BlobOpeners(this.#parts.master, defaultWorkers())),
    }
  }

  async readPackHeader(pack: string, sizeBytes: number, options: Options): Promise<PackedBlob[]> {
    return readPackHeader(this.#parts, pack, sizeBytes, options)
  }

  decodePack(pack: string, bytes: Buffer): PackedBlob[] {
    return decodePack(this.#parts.cipher, bytes, `pack ${pack}`)
  }

  openBlob(blob: Pick<PackedBlob, 'id' | 'type' | 'plainLength'>, envelope: Buffer): Buffer {
    return this.#opener.open(blob, envelope)
  }

  viewBlob(blob: Pick<PackedBlob, 'id' | 'type' | 'plainLength'>, envelope: Buffer): Buffer {
    return this.#opener.view(blob, envelope)
  }

  openPackProver(workers: number): PackProver {
    return openPackProver(this.#parts.master, workers)
  }

  async listFiles(folder: JsonFolder | 'keys', options: Options): Promise<StoredFile[]> {
    return listFiles(this.storage, folder, options)
  }

  async loadJson(
    folder: JsonFolder,
    file: { readonly id: string; readonly sizeBytes?: number | undefined },
    options: Options,
  ): Promise<unknown> {
    return loadJson(this.#parts, folder, file, options)
  }

  async saveJson(folder: JsonFolder, text: string, options: Options): Promise<string> {
    // A lock is all that is ever written to an old repository.
    if (folder !== 'locks') this.#refuseOldVersion('write to')
    return saveJson({ ...this.#parts, version: this.version }, folder, text, options)
  }

  async snapshots({ signal }: Options): Promise<Snapshot[]> {
    const files = await this.listFiles('snapshots', { signal })
    return loadSnapshots(files, signal, (file) => this.loadJson('snapshots', file, { signal }))
  }

  async saveSnapshot(snapshot: Omit<Snapshot, 'id'>, { signal }: Options): Promise<Snapshot> {
    const id = await this.saveJson('snapshots', encodeSnapshot(snapshot), { signal })
    return { ...snapshot, id }
  }

  async removeSnapshot(id: string, { signal }: Options): Promise<void> {
    takeId(id, 'snapshot to remove')
    await this.storage.delete(`snapshots/${id}`, { signal })
  }

  async listKeys(options: Options): Promise<RepositoryKey[]> {
    return listKeys(this.storage, options)
  }

  async addKey(
    password: string,
    { signal, beforeStored }: Options & AddKeyOptions,
  ): Promise<string> {
    const { storage, master, kernels, passwordCost: cost } = this.#parts
    const id = await saveKey(storage, master, password, { signal, kernels, cost, beforeStored })
    // What was written must open: a vault that nobody can enter is lost.
    if (sha256Hex(await readFile(storage, 'keys', { id }, { signal })) !== id) {
      throw new Fault('corrupt', `add key ${id.slice(0, 8)}: the store gives other bytes back`)
    }
    return id
  }

  async changeKey(password: string, { signal }: Options): Promise<string> {
    const id = await this.addKey(password, { signal })
    await this.storage.delete(`keys/${this.keyId}`, { signal })
    return id
  }

  async removeKey(id: string, { signal }: Options): Promise<void> {
    if (id === this.keyId) {
      throw new Fault(
        'refused',
        `remove key ${id.slice(0, 8)}: it is the one that opened the vault`,
        {
          hint: 'Open the vault with another password to remove this one.',
        },
      )
    }
    const keys = await this.listFiles('keys', { signal })
    if (!keys.some((key) => key.id === id)) {
      throw new Fault('missing', `remove key ${id.slice(0, 64)}: there is no such key`)
    }
    await this.storage.delete(`keys/${id}`, { signal })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#openers?.[Symbol.asyncDispose]()
    this.#opener[Symbol.dispose]()
    this.#parts.cipher[Symbol.dispose]()
    this.#index.clear()
  }
}
