import { toJson } from '#base/log'
import { systemTime, type Time } from '#base/time'
import type { Storage } from '#storage'
import type { LogFinding } from '../archive/archive.ts'
import { Fields } from '../fields.ts'
import {
  type BaseRecord,
  decodeBase,
  decodeGap,
  decodeProof,
  decodeSource,
  decodeTrim,
  type GapRecord,
  type ProofRecord,
  type SourceRecord,
  type TrimRecord,
} from './records.ts'
import { archiverKinds, type Kind, kinds, plainRecord, type RecordStore } from './store.ts'

type Options = { readonly signal: AbortSignal }
type New<T> = Omit<T, 'recordedMs'>

/** Append-only signed records. Everything that was recorded is durable when the call returns. */
export interface Catalog {
  /** Records a source; the same facts once more under the same key are passed over. */
  addSource(record: New<SourceRecord>, options: Options): Promise<void>
  addBase(record: New<BaseRecord>, options: Options): Promise<void>
  addGap(record: New<GapRecord>, options: Options): Promise<void>
  addProof(record: New<ProofRecord>, options: Options): Promise<void>
  addTrim(record: New<TrimRecord>, options: Options): Promise<void>
  /** The newest record of each source, in the order of their first ones. */
  sources(options: Options): Promise<SourceRecord[]>
  /** In the order of recording; bases whose snapshot was forgotten are not among them. */
  bases(source: string, options: Options): Promise<BaseRecord[]>
  gaps(source: string, options: Options): Promise<GapRecord[]>
  proofs(source: string, options: Options): Promise<ProofRecord[]>
  trims(source: string, options: Options): Promise<TrimRecord[]>
  /** Removes what a key signed: it was struck off. */
  removeSigned(keyId: string, options: Options): Promise<void>
  /** Reads every record; returns all that is damaged or forged. */
  check(options: Options): Promise<LogFinding[]>
}

export class SignedCatalog implements Catalog {
  readonly #storage: Storage
  readonly #records: RecordStore
  readonly #time: Time
  /** Of a host that only archives: it cannot look what is recorded already. */
  readonly #readable: boolean
  #newestMs = 0

  constructor(
    storage: Storage,
    records: RecordStore,
    options: { readonly readable: boolean; readonly time?: Time | undefined },
  ) {
    this.#storage = storage
    this.#records = records
    this.#readable = options.readable
    this.#time = options.time ?? systemTime
  }

  async addSource(record: New<SourceRecord>, options: Options): Promise<void> {
    if (this.#readable) {
      const last = (await this.#records.entries('sources', record.name, options)).at(-1)
      const { recordedMs: _, ...before } = last ? decodeSource(last.fields) : { recordedMs: 0 }
      const isSame = JSON.stringify(sorted(before)) === JSON.stringify(sorted(record))
      // An archiver may be struck off, and its records with it.
      if (last?.scope.kind === 'root' && isSame) return
    }
    await this.#add('sources', record.name, record, options)
  }

  addBase(record: New<BaseRecord>, options: Options): Promise<void> {
    return this.#add('bases', record.source, record, options)
  }

  addGap(record: New<GapRecord>, options: Options): Promise<void> {
    return this.#add('gaps', record.source, record, options)
  }

  addProof(record: New<ProofRecord>, options: Options): Promise<void> {
    return this.#add('proofs', record.source, record, options)
  }

  addTrim(record: New<TrimRecord>, options: Options): Promise<void> {
    return this.#add('trims', record.source, record, options)
  }

  async sources(options: Options): Promise<SourceRecord[]> {
    const all = await this.#records.list('sources', undefined, options)
    return [...new Map(all.map(decodeSource).map((record) => [record.name, record])).values()]
  }

  async bases(source: string, options: Options): Promise<BaseRecord[]> {
    const bases = (await this.#records.list('bases', source, options)).map(decodeBase)
    if (bases.length === 0) return []
    // Listed after the records: a base that was just taken has its snapshot.
    const snapshots = new Set<string>()
    for await (const { key } of this.#storage.list('snapshots/', options)) snapshots.add(key)
    return bases.filter(({ snapshot }) => snapshots.has(`snapshots/${snapshot}`))
  }

  async gaps(source: string, options: Options): Promise<GapRecord[]> {
    return (await this.#records.list('gaps', source, options)).map(decodeGap)
  }

  async proofs(source: string, options: Options): Promise<ProofRecord[]> {
    return (await this.#records.list('proofs', source, options)).map(decodeProof)
  }

  async trims(source: string, options: Options): Promise<TrimRecord[]> {
    return (await this.#records.list('trims', source, options)).map(decodeTrim)
  }

  async removeSigned(keyId: string, options: Options): Promise<void> {
    for (const kind of archiverKinds) await this.#records.removeSigned(kind, keyId, options)
  }

  async check(options: Options): Promise<LogFinding[]> {
    const findings: LogFinding[] = []
    for (const kind of kinds) {
      for (const { key, error } of await this.#records.check(kind, options)) {
        findings.push({ severity: 'damaged', code: error.code, object: key, said: error.message })
      }
    }
    return findings
  }

  async #add(kind: Kind, source: string, record: object, options: Options): Promise<void> {
    // Two records of one instant keep their order.
    this.#newestMs = Math.max(this.#time.now(), this.#newestMs + 1)
    const plain = plainRecord(record)
    // Read back before it is written: one record that cannot be read would stand in the way of all.
    const json = toJson({ ...plain, recordedMs: this.#newestMs })
    decoders[kind](Fields.parse(json, `new record of ${kind}`))
    await this.#records.add(kind, source, plain, this.#newestMs, options)
    if (this.#readable) await this.#records.compact(kind, source, options)
  }
}

/** How each kind is read. */
const decoders = {
  sources: decodeSource,
  bases: decodeBase,
  gaps: decodeGap,
  proofs: decodeProof,
  trims: decodeTrim,
} as const satisfies Record<Kind, (fields: Fields) => unknown>

function sorted(record: object): readonly [string, unknown][] {
  return Object.entries(record).toSorted(([a], [b]) => (a < b ? -1 : 1))
}
