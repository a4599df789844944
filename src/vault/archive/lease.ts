import { hostname } from 'node:os'
import { assert, Fault, isFault } from '#base/faults'
import { randomHex } from '#base/ids'
import type { Position } from '#change'
import type { Storage } from '#storage'
import { Fields } from '../fields.ts'
import { formatSignedJson, parseSignedJson, type SignedJson } from '../signed-json.ts'
import { type Keyring, maySignLog, type Signer } from '../signing.ts'
import type { Holder } from './holder.ts'
import type { ListFrom, ListMark } from './inventory.ts'
import { leaseFolder } from './names.ts'

/** The source's word, kept fresh on an idle source: at `completeUs` its log ended at `end`, and the archive held all of it. */
export type LeaseNote = { readonly end: Position; readonly completeUs: bigint }

/**
 * How far the log is stored, by the archiver's own word: what a listing must show, at the least, and from where on it must
 * be listed to find the end.
 */
export type LeaseTail = {
  /** Number of the last part whose upload was answered, and where the log ends behind it. */
  readonly sequence: number
  readonly end: Position
  readonly from: ListFrom | undefined
}

/** Why the durability that was asked for is not had, and since when by the archiver's clock. */
export type Degraded = { readonly said: string; readonly sinceMs: number }

/** What an archiver says of itself with each refresh. */
export type LeaseSays = {
  readonly note: LeaseNote | undefined
  readonly tail: LeaseTail | undefined
  readonly degraded: Degraded | undefined
}

export type LeaseRecord = {
  readonly epoch: number
  readonly holder: string
  readonly host: string
  readonly nonce: string
  readonly released: boolean
  readonly note?: LeaseNote | undefined
  readonly tail?: LeaseTail | undefined
  readonly degraded?: Degraded | undefined
}

export type LeaseOptions = {
  readonly storage: Storage
  readonly source: string
  readonly signer: Signer
  readonly keyring: Keyring
  readonly holder: Holder
}

/** Not refreshed for so long, by the store's own times, a lease is free. */
export const leaseMs = 30_000
export const refreshEveryMs = 8_000
/** A holder that could not refresh for so long stops by itself, well before anyone may take over. */
export const selfFenceMs = 20_000

const purpose = 'redoubt archiver lease v1'
const digits = 8

/**
 * The right to write one source's log. Each holder has an object of its own, numbered by its epoch, made by a
 * conditional put; it overwrites that object to stay alive, and whoever sees a higher number has lost.
 */
export class Lease {
  readonly epoch: number
  /** False where the store has no conditional put: two archivers that start in the same instant are then found out late. */
  readonly exclusive: boolean
  readonly #options: LeaseOptions
  readonly #nonce: string
  #note: LeaseNote | undefined
  #tail: LeaseTail | undefined
  #degraded: Degraded | undefined

  private constructor(options: LeaseOptions, epoch: number, nonce: string) {
    this.#options = options
    this.epoch = epoch
    this.#nonce = nonce
    this.exclusive = options.storage.can.conditionalPut
  }

  /** Takes the lease; `locked` names the holder while another one lives. */
  static async acquire(options: LeaseOptions, signal: AbortSignal): Promise<Lease> {
    const { storage, source, signer, keyring } = options
    const scope = keyring.scopeOf(signer.id)
    if (!scope || !maySignLog(scope, source)) {
      throw new Fault(
        'refused',
        `archive the log of ${source}: key ${signer.id} is not enrolled for it`,
        {
          hint: 'Whoever has the password of the vault can enrol this host for the source.',
        },
      )
    }
    const epochs = await listEpochs(options, signal)
    const latest = epochs.at(-1)
    const before =
      latest === undefined ? undefined : await readLease(options, leaseKey(source, latest), signal)
    if (latest !== undefined) await checkFree(options, latest, before, signal)
    const lease = new Lease(options, (latest ?? 0) + 1, randomHex(8))
    // Taken over before the older lease goes: at every moment one tells how far the log went.
    lease.#tail = before?.tail
    options.holder.begin(lease.#nonce)
    await lease.#put({ released: false, ifAbsent: storage.can.conditionalPut }, signal)
    await lease.#checkNewest(signal)
    for (const epoch of epochs) await storage.delete(leaseKey(source, epoch), { signal })
    return lease
  }

  /** How far the log is stored: written with the next refresh, and with the release. */
  get tail(): LeaseTail | undefined {
    return this.#tail
  }

  /** Says that the holder lives; `locked` when another one took over. */
  async refresh(says: LeaseSays, signal: AbortSignal): Promise<void> {
    this.#note = says.note
    this.#degraded = says.degraded
    this.#tail = says.tail ?? this.#tail
    await this.#checkNewest(signal)
    await this.#put({ released: false, ifAbsent: false }, signal)
  }

  /** The store's own time of the last refresh: its clock, some seconds late, at no cost of a write. */
  async storeMs(signal: AbortSignal): Promise<number> {
    const { storage, source } = this.#options
    const info = await storage.stat(leaseKey(source, this.epoch), { signal })
    // Removed by who took over: what is not deleted now the next one deletes.
    return info?.modifiedMs ?? 0
  }

  /** Says to this process's other leases that this one is over, whatever the store still shows. */
  end(): void {
    this.#options.holder.end(this.#nonce)
  }

  /** Gives the right back, so that the next one need not wait. */
  async release(tail: LeaseTail | undefined, signal: AbortSignal): Promise<void> {
    this.#tail = tail ?? this.#tail
    // Nobody archives from here on: there is no durability to be less than what was asked for.
    this.#degraded = undefined
    await this.#checkNewest(signal)
    await this.#put({ released: true, ifAbsent: false }, signal)
  }

  async #put(how: { released: boolean; ifAbsent: boolean }, signal: AbortSignal): Promise<void> {
    const { storage, source, signer, holder } = this.#options
    const { released, ifAbsent } = how
    const record: LeaseRecord = {
      epoch: this.epoch,
      holder: holder.text,
      host: hostname(),
      nonce: this.#nonce,
      released,
      note: this.#note,
      tail: this.#tail,
      degraded: this.#degraded,
    }
    const key = leaseKey(source, this.epoch)
    const bytes = formatSignedJson(purpose, { source, ...record }, signer)
    try {
      await storage.put(key, bytes, ifAbsent ? { signal, ifAbsent } : { signal })
    } catch (error) {
      if (!ifAbsent || !isFault(error, 'exists')) throw error
      // A retried put meets its own first try.
      const present = await readLease(this.#options, key, signal)
      if (present?.nonce !== this.#nonce) throw taken(source, present, error)
    }
  }

  async #checkNewest(signal: AbortSignal): Promise<void> {
    const { source } = this.#options
    const epochs = await listEpochs(this.#options, signal)
    for (const epoch of epochs.filter((one) => one >= this.epoch)) {
      const present = await readLease(this.#options, leaseKey(source, epoch), signal)
      // What nobody who may archive has signed is no lease: it must not stop one who may.
      if (!present) continue
      if (epoch > this.epoch || present.nonce !== this.#nonce) throw taken(source, present)
    }
  }
}

/** The newest lease of a source, and when the store last heard of its holder. */
export async function newestLease(
  options: Pick<LeaseOptions, 'storage' | 'source' | 'keyring'>,
  signal: AbortSignal,
): Promise<(LeaseRecord & { readonly seenMs: number }) | undefined> {
  const newest = (await listEpochs(options, signal)).at(-1)
  if (newest === undefined) return undefined
  const key = leaseKey(options.source, newest)
  const record = await readLease(options, key, signal)
  const info = await options.storage.stat(key, { signal })
  return record && info && { ...record, seenMs: info.modifiedMs }
}

/** Where the lease of an epoch lies. */
export function leaseKey(source: string, epoch: number): string {
  return `${leaseFolder(source)}${String(epoch).padStart(digits, '0')}`
}

async function listEpochs(
  options: Pick<LeaseOptions, 'storage' | 'source'>,
  signal: AbortSignal,
): Promise<number[]> {
  const { storage, source } = options
  const folder = leaseFolder(source)
  const epochs: number[] = []
  for await (const { key } of storage.list(folder, { signal })) {
    const text = key.slice(folder.length)
    if (/^\d{8}$/.test(text)) epochs.push(Number(text))
  }
  return epochs
}

async function checkFree(
  options: LeaseOptions,
  epoch: number,
  record: LeaseRecord | undefined,
  signal: AbortSignal,
): Promise<void> {
  const { storage, source } = options
  const key = leaseKey(source, epoch)
  if (record === undefined || record.released || options.holder.isDead(record)) return
  const seen = await storage.stat(key, { signal })
  if (!seen) return
  const nowMs = await storeNow(options, signal)
  if (nowMs - seen.modifiedMs <= leaseMs) throw taken(source, record)
}

/** The store's own clock: the time that it gives to an object put just now. */
async function storeNow(
  options: Pick<LeaseOptions, 'storage' | 'source'>,
  signal: AbortSignal,
): Promise<number> {
  const { storage, source } = options
  const key = `${leaseFolder(source)}clock-${randomHex(8)}`
  await storage.put(key, Buffer.from('clock\n'), { signal })
  const info = await storage.stat(key, { signal })
  await storage.delete(key, { signal })
  assert(info, 'what was put is there')
  return info.modifiedMs
}

/** A lease; undefined when it is gone, or bears no signature of a key that may archive the source (any more). */
async function readLease(
  options: Pick<LeaseOptions, 'storage' | 'source' | 'keyring'>,
  key: string,
  signal: AbortSignal,
): Promise<LeaseRecord | undefined> {
  const { storage, source, keyring } = options
  let bytes: Buffer
  try {
    bytes = await storage.get(key, { signal })
  } catch (error) {
    if (isFault(error, 'missing')) return undefined
    throw error
  }
  let signed: SignedJson
  try {
    signed = parseSignedJson(bytes, { purpose, keyring, what: `lease ${key}` })
  } catch (error) {
    if (isFault(error, 'forged', 'corrupt')) return undefined
    throw error
  }
  const { fields, scope } = signed
  if (fields.text('source') !== source || !maySignLog(scope, source)) return undefined
  const note = fields.optional('note', (f, name) => f.object(name))
  const tail = fields.optional('tail', (f, name) => f.object(name))
  const degraded = fields.optional('degraded', (f, name) => f.object(name))
  return {
    epoch: fields.count('epoch'),
    holder: fields.text('holder'),
    host: fields.text('host'),
    nonce: fields.text('nonce'),
    released: fields.flag('released'),
    note: note && {
      end: readEnd(note),
      completeUs: note.bigint('completeUs'),
    },
    tail: tail && {
      sequence: tail.count('sequence'),
      end: readEnd(tail),
      from: tail.optional('from', (f, name) => readFrom(f.object(name))),
    },
    degraded: degraded && { said: degraded.text('said'), sinceMs: degraded.count('sinceMs') },
  }
}

function readEnd(fields: Fields): Position {
  const end = fields.object('end')
  return { history: end.text('history'), at: end.text('at') }
}

function readFrom(fields: Fields): ListFrom {
  return {
    ...readMark(fields),
    past: fields.list('past').map((mark) => readMark(Fields.of(mark, 'a mark of a lease'))),
  }
}

function readMark(fields: Fields): ListMark {
  return { history: fields.text('history'), first: fields.text('first') }
}

function taken(source: string, holder: LeaseRecord | undefined, cause?: unknown): Fault {
  const who = holder ? `on host ${holder.host} with epoch ${holder.epoch}` : 'that just went'
  return new Fault(
    'locked',
    `archive the log of ${source}: another archiver ${who} has the lease`,
    {
      hint: `Stop the other one; if it is dead, its lease ends ${leaseMs / 1000} s after its last sign of life.`,
      cause,
    },
  )
}
