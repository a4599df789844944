import { Fault } from '#base/faults'
import { randomHex } from '#base/ids'
import { toJson } from '#base/log'
import { eachLimit } from '#base/tasks'
import type { Storage } from '#storage'
import { decryptWith, encryptTo } from '../archive/age/age.ts'
import { encodeText } from '../archive/names.ts'
import type { Reading, Sealing } from '../archive/object.ts'
import type { Fields } from '../fields.ts'
import { claimedSigner, formatSignedJson, parseSignedJson } from '../signed-json.ts'
import { maySignLog, type Scope } from '../signing.ts'

export type Kind = 'sources' | 'bases' | 'gaps' | 'proofs' | 'trims'

export const kinds: readonly Kind[] = ['sources', 'bases', 'gaps', 'proofs', 'trims']

/** An archiver may say that it met a source, or that log is lost; bases, proofs and trims are for holders of the password. */
export const archiverKinds: readonly Kind[] = ['sources', 'gaps']

/** A record as it is stored: `key` is its place, and in what is signed, so that it cannot be moved. */
type Entry = { readonly key: string; readonly scope: Scope; readonly fields: Fields }

type Options = { readonly signal: AbortSignal }

const purpose = 'redoubt catalog record v1'
const bundlePurpose = 'redoubt catalog bundle v1'
const readsAtOnce = 8
const recordBytesMax = 4 * 1024 * 1024
const bundleBytesMax = 64 * 1024 * 1024
/** So many loose records of one kind and source are joined into a bundle. */
export const looseMax = 64

/** Signed records under `catalog/<kind>/<source>/`, encrypted; loose ones and bundles of them. The format is in docs/formats/catalog.md. */
export class RecordStore {
  readonly #storage: Storage
  readonly #sealing: Sealing
  /** Undefined where the vault's identity is not at hand: then nothing can be read. */
  readonly #reading: Reading | undefined

  constructor(storage: Storage, sealing: Sealing, reading: Reading | undefined) {
    this.#storage = storage
    this.#sealing = sealing
    this.#reading = reading
  }

  /** Stores a record; durable when the call returns. */
  async add(kind: Kind, source: string, record: object, recordedMs: number, options: Options) {
    const stamp = String(recordedMs).padStart(15, '0')
    const key = `${folderOf(kind, source)}${stamp}-${randomHex(6)}.json.age`
    const value = {
      key,
      vault: this.#sealing.vault,
      kind,
      source,
      record: { ...record, recordedMs },
    }
    await this.#put(key, formatSignedJson(purpose, value, this.#sealing.signer), options.signal)
  }

  /** The records of a kind and a source, in the order of recording; all sources when it is undefined. */
  async list(kind: Kind, source: string | undefined, options: Options): Promise<Fields[]> {
    return (await this.entries(kind, source, options)).map(({ fields }) => fields)
  }

  /** The same, with who signed them. */
  async entries(kind: Kind, source: string | undefined, options: Options): Promise<Entry[]> {
    this.#readingOrRefuse()
    const { loose, bundles } = await this.#keys(kind, source, options)
    const entries = new Map<string, Entry>()
    for (const key of bundles) {
      for (const entry of await this.#readBundle(key, kind, options)) {
        entries.set(entry.key, entry)
      }
    }
    const rest = loose.filter((key) => !entries.has(key))
    await eachLimit(rest, readsAtOnce, options.signal, async (key, signal) => {
      entries.set(key, await this.#readLoose(key, kind, { signal }))
    })
    return [...entries]
      .toSorted(([a], [b]) => (nameOf(a) < nameOf(b) ? -1 : 1))
      .map(([, entry]) => entry)
  }

  /** Keys of what cannot be believed or read, with why: everything is looked at. */
  async check(
    kind: Kind,
    options: Options,
  ): Promise<{ readonly key: string; readonly error: Fault }[]> {
    const { loose, bundles } = await this.#keys(kind, undefined, options)
    const found: { key: string; error: Fault }[] = []
    await eachLimit([...bundles, ...loose], readsAtOnce, options.signal, async (key, signal) => {
      try {
        if (key.includes('.bundle.')) await this.#readBundle(key, kind, { signal })
        else await this.#readLoose(key, kind, { signal })
      } catch (error) {
        if (!(error instanceof Fault) || error.recovery === 'retry') throw error
        found.push({ key, error })
      }
    })
    return found.toSorted((a, b) => (a.key < b.key ? -1 : 1))
  }

  /**
   * Joins loose records of a kind and source into one bundle when they are many, and removes what the bundle of before
   * holds too: a listing never costs more than that. Every record stays as it was signed.
   */
  async compact(kind: Kind, source: string, options: Options): Promise<void> {
    const { loose, bundles } = await this.#keys(kind, source, options)
    const known = new Map<string, string>()
    for (const key of bundles) {
      for (const entry of await this.#readBundle(key, kind, options))
        known.set(entry.key, entry.text)
    }
    // Removed only in the next round, so that whoever listed before the bundle was there still finds them.
    for (const key of loose) if (known.has(key)) await this.#storage.delete(key, options)
    const fresh = loose.filter((key) => !known.has(key))
    if (fresh.length < looseMax) return
    for (const key of fresh) known.set(key, (await this.#readLoose(key, kind, options)).text)
    const names = [...known.keys()].toSorted((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1))
    const last = nameOf(names.at(-1) ?? '')
    const key = `${folderOf(kind, source)}${last}.bundle.json.age`
    const records = names.map((name) => known.get(name) ?? '')
    const value = { key, vault: this.#sealing.vault, kind, source, records }
    await this.#put(
      key,
      formatSignedJson(bundlePurpose, value, this.#sealing.signer),
      options.signal,
    )
    for (const older of bundles) await this.#storage.delete(older, options)
  }

  /** Removes the loose records that a key signed; those in bundles are passed over by whoever reads them. */
  async removeSigned(kind: Kind, keyId: string, options: Options): Promise<void> {
    const { loose } = await this.#keys(kind, undefined, options)
    await eachLimit(loose, readsAtOnce, options.signal, async (key, signal) => {
      const text = await this.#decrypt(key, recordBytesMax, { signal })
      if (claimedSigner(text) === keyId) await this.#storage.delete(key, { signal })
    })
  }

  async #put(key: string, signed: Buffer, signal: AbortSignal): Promise<void> {
    const { can } = this.#storage
    const bytes = encryptTo(this.#sealing.recipients, signed)
    const ifAbsent = can.conditionalPut && !key.includes('.bundle.')
    try {
      await this.#storage.put(key, bytes, ifAbsent ? { signal, ifAbsent } : { signal })
    } catch (error) {
      // The name is random: what is there is this very record, put by a try whose answer was lost.
      if (!(error instanceof Fault) || error.code !== 'exists') throw error
    }
  }

  async #keys(
    kind: Kind,
    source: string | undefined,
    options: Options,
  ): Promise<{ readonly loose: string[]; readonly bundles: string[] }> {
    const prefix = source === undefined ? `catalog/${kind}/` : folderOf(kind, source)
    const loose: string[] = []
    const bundles: string[] = []
    for await (const { key } of this.#storage.list(prefix, options)) {
      if (key.endsWith('.bundle.json.age')) bundles.push(key)
      else if (key.endsWith('.json.age')) loose.push(key)
    }
    return { loose, bundles }
  }

  async #readLoose(key: string, kind: Kind, options: Options): Promise<Entry & { text: string }> {
    const text = await this.#decrypt(key, recordBytesMax, options)
    return { ...this.#open(text, key, kind), text: text.toString() }
  }

  async #readBundle(
    key: string,
    kind: Kind,
    options: Options,
  ): Promise<(Entry & { text: string })[]> {
    const text = await this.#decrypt(key, bundleBytesMax, options)
    const what = `catalog bundle ${key}`
    const { keyring, vault } = this.#readingOrRefuse()
    const { fields } = parseSignedJson(text, { purpose: bundlePurpose, keyring, what })
    if (fields.text('key') !== key || fields.text('vault') !== vault) {
      throw new Fault('forged', `check ${what}: it was written as ${fields.text('key')}`)
    }
    // A bundle vouches for nothing: each record in it bears the signature that it always had.
    const records = fields.list('records').map((record) => Buffer.from(String(record)))
    return records
      .filter((bytes) => !this.#isStruckOff(bytes, kind))
      .map((bytes) => ({ ...this.#open(bytes, undefined, kind), text: bytes.toString() }))
  }

  #open(text: Buffer, key: string | undefined, kind: Kind): Entry {
    const what = `catalog record ${key ?? `of kind ${kind}`}`
    const { keyring, vault } = this.#readingOrRefuse()
    const { fields, scope } = parseSignedJson(text, { purpose, keyring, what })
    const written = fields.text('key')
    const source = fields.text('source')
    const inPlace = key === undefined || key === written
    if (!inPlace || fields.text('vault') !== vault || fields.text('kind') !== kind) {
      throw new Fault('forged', `check ${what}: it was written as ${written}`)
    }
    if (!written.startsWith(folderOf(kind, source)) || !maySign(scope, kind, source)) {
      throw new Fault('forged', `check ${what}: ${scope.name} may not sign it`)
    }
    return { key: written, scope, fields: fields.object('record') }
  }

  /** The bundle's maker had checked the signature: it can only be of an archiver that was struck off since. */
  #isStruckOff(bytes: Buffer, kind: Kind): boolean {
    const signer = claimedSigner(bytes)
    if (signer === undefined || !archiverKinds.includes(kind)) return false
    return this.#readingOrRefuse().keyring.scopeOf(signer) === undefined
  }

  async #decrypt(key: string, bytesMax: number, { signal }: Options): Promise<Buffer> {
    const { identities } = this.#readingOrRefuse()
    const info = await this.#storage.stat(key, { signal })
    if (info && info.sizeBytes > bytesMax) {
      throw new Fault('corrupt', `read catalog record ${key}: it has ${info.sizeBytes} bytes`)
    }
    const bytes = await this.#storage.get(key, { signal })
    try {
      return decryptWith(identities, bytes)
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      throw new Fault(error.code, `read catalog record ${key}: ${error.message}`, { cause: error })
    }
  }

  #readingOrRefuse(): Reading {
    if (this.#reading) return this.#reading
    throw new Fault('denied', 'read the catalog: a host that only archives cannot', {
      hint: 'Open the vault with its password.',
    })
  }
}

/** Records as JSON takes them: numbers beyond a double's reach become text. */
export function plainRecord(record: object): object {
  return JSON.parse(toJson(record)) as object
}

function maySign(scope: Scope, kind: Kind, source: string): boolean {
  return scope.kind === 'root' || (archiverKinds.includes(kind) && maySignLog(scope, source))
}

function folderOf(kind: Kind, source: string): string {
  return `catalog/${kind}/${encodeText(source)}/`
}

/** The last part of a key: it begins with the time of recording. */
function nameOf(key: string): string {
  return key.slice(key.lastIndexOf('/') + 1)
}
