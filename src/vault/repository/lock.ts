import { readFileSync, readlinkSync } from 'node:fs'
import { hostname, userInfo } from 'node:os'
import { Fault, fromSystem, isAbort, isFault } from '#base/faults'
import { systemTime, type Time } from '#base/time'
import { formatTimeNs } from './go-text.ts'
import type { Repository, RepositoryLock, StoredFile } from './repository.ts'

/** What locking needs of a repository. */
export type Lockable = Pick<Repository, 'storage' | 'listFiles' | 'loadJson' | 'saveJson'>

export type LockKind = 'shared' | 'exclusive'

export type LockOptions = {
  readonly signal: AbortSignal
  readonly time?: Time | undefined
  /** The work only reads: where the store refuses to be written to, it goes on without a lock. */
  readonly readOnly?: boolean | undefined
  readonly wait?: LockWait | undefined
}

/** How to meet a lock of somebody else: without it, it is refused at once. */
export type LockWait = {
  readonly ms: number
  /** Told once of the lock that is waited for. */
  readonly onWait: (locked: Fault) => void
}

/** A lock that was not refreshed for so long belongs to nobody any more (restic's figure, as all below). */
export const lockStaleMs = 30 * 60_000
const refreshMs = 5 * 60_000
/** Well before others take the lock for stale: the difference covers clocks that run unevenly. */
const refreshedWithinMs = lockStaleMs - 1.5 * refreshMs
/** How often the age of the last refresh is looked at: timers stand still while a machine sleeps. */
const watchMs = 1000
/** Between writing the own lock and looking for others a second time. */
const settleMs = 200
const readTriesMax = 3
/** While waiting for a lock it is looked for so often: soon at first, then seldom. */
const firstPauseMs = 500
const pauseMaxMs = 10_000
/** For one turn with the store while refreshing or releasing. */
const storeMaxMs = 30_000

/** What a lock file says of its holder; the fields below `gid` are our own, restic passes them over. */
type Holder = {
  readonly time: string
  readonly exclusive: boolean
  readonly hostname: string
  readonly username: string
  readonly pid: number
  readonly uid?: number | undefined
  readonly gid?: number | undefined
  /** Boot of the machine, process namespace and start of the process: name it beyond doubt on this machine. */
  readonly process?: string | undefined
}

type Lock = StoredFile & {
  /** Undefined when the file cannot be read. */
  readonly holder: Holder | undefined
}

/**
 * Locks the repository against stock restic and other processes of ours: any number of shared locks, or one
 * exclusive one. Throws `locked`, naming the holder, once `wait` is over. Locks of dead processes of this machine, and such as were
 * not refreshed for 30 minutes by the store's own times, are removed. The lock's signal aborts when it is lost.
 */
export async function lockRepository(
  repository: Lockable,
  kind: LockKind,
  options: LockOptions,
): Promise<RepositoryLock> {
  const { signal, time = systemTime, wait } = options
  const untilMs = time.monotonicMs() + (wait?.ms ?? 0)
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMaxMs, 2 * pauseMs)) {
    try {
      return await tryLock(repository, kind, options)
    } catch (error) {
      const leftMs = untilMs - time.monotonicMs()
      if (!isFault(error, 'locked') || leftMs <= 0) throw error
      if (pauseMs === firstPauseMs) wait?.onWait(error)
      // With jitter, lest two that wait for each other meet again.
      await time.sleep(Math.min(leftMs, pauseMs * (0.5 + Math.random() / 2)), signal)
    }
  }
}

async function tryLock(
  repository: Lockable,
  kind: LockKind,
  options: LockOptions,
): Promise<RepositoryLock> {
  const { signal, time = systemTime } = options
  const exclusive = kind === 'exclusive'
  const early = await readLocks(repository, signal)
  const held = early.find(
    (lock) =>
      conflicts(lock, exclusive) &&
      !isDead(lock.holder) &&
      time.now() - lock.modifiedMs < lockStaleMs,
  )
  if (held) throw lockedFault(repository, held)

  const id = await writeLock(repository, exclusive, options).catch((error: unknown) => {
    if (options.readOnly && !exclusive && isFault(error, 'denied')) return undefined
    throw error
  })
  if (id === undefined) return { signal, [Symbol.asyncDispose]: async () => undefined }
  try {
    await time.sleep(settleMs, signal)
    await checkOthers(repository, { id, exclusive, signal })
  } catch (error) {
    await releaseLock(repository, id)
    throw error
  }
  return new HeldLock(repository, { id, exclusive, signal, time })
}

/** Looks for others once the own lock stands: its time of writing is the store's word for "now". */
async function checkOthers(
  repository: Lockable,
  own: { readonly id: string; readonly exclusive: boolean; readonly signal: AbortSignal },
): Promise<void> {
  const { storage } = repository
  const { id, exclusive, signal } = own
  const nowMs = (await storage.stat(lockKey(id), { signal }))?.modifiedMs
  if (nowMs === undefined) {
    throw new Fault('conflict', `lock ${storage.url}: the new lock is gone again`, {
      recovery: 'retry',
    })
  }
  const stale: Lock[] = []
  for (const lock of await readLocks(repository, signal, id)) {
    if (nowMs - lock.modifiedMs > lockStaleMs || isDead(lock.holder)) stale.push(lock)
    else if (conflicts(lock, exclusive)) throw lockedFault(repository, lock)
  }
  for (const lock of stale) await storage.delete(lockKey(lock.id), { signal })
}

function lockKey(id: string): string {
  return `locks/${id}`
}

/** A file that cannot be read may be an exclusive lock. */
function conflicts({ holder }: Lock, exclusive: boolean): boolean {
  return exclusive || !holder || holder.exclusive
}

function lockedFault({ storage }: Lockable, { id, modifiedMs, holder }: Lock): Fault {
  const since = new Date(modifiedMs).toISOString()
  const who = holder
    ? `${holder.exclusive ? 'exclusive' : 'shared'}, process ${holder.pid} of ${holder.username} on ${holder.hostname}`
    : 'unreadable'
  return new Fault('locked', `lock ${storage.url}: lock ${id.slice(0, 8)} of ${since} (${who})`, {
    hint: 'Wait until that process ends; a lock that is not refreshed for 30 minutes is removed by itself.',
  })
}

/** All locks but our own. Empty files are left behind by interrupted uploads and count for nothing. */
async function readLocks(
  repository: Lockable,
  signal: AbortSignal,
  ownId?: string,
): Promise<readonly Lock[]> {
  const locks: Lock[] = []
  for (const file of await repository.listFiles('locks', { signal })) {
    if (file.id === ownId || file.sizeBytes === 0) continue
    const lock = await readLock(repository, file, signal)
    if (lock) locks.push(lock)
  }
  return locks
}

/** Undefined when the lock was removed in the meantime. */
async function readLock(
  repository: Lockable,
  file: StoredFile,
  signal: AbortSignal,
): Promise<Lock | undefined> {
  for (let tries = 1; ; tries++) {
    try {
      return { ...file, holder: decodeHolder(await repository.loadJson('locks', file, { signal })) }
    } catch (error) {
      if (isFault(error, 'missing')) return undefined
      if (!isFault(error, 'corrupt')) throw error
      if (tries === readTriesMax) return { ...file, holder: undefined }
    }
  }
}

function decodeHolder(json: unknown): Holder {
  const raw = typeof json === 'object' && json !== null ? json : {}
  const field = (name: string): unknown => Reflect.get(raw, name)
  const text = (name: string) => {
    const value = field(name)
    return typeof value === 'string' ? value : ''
  }
  const pid = field('pid')
  const exclusive = field('exclusive')
  if (typeof pid !== 'number' || typeof exclusive !== 'boolean') {
    throw new Fault('corrupt', 'read lock: it names no process')
  }
  return {
    time: text('time'),
    exclusive,
    hostname: text('hostname'),
    username: text('username'),
    pid,
    process: text('process') || undefined,
  }
}

async function writeLock(
  repository: Lockable,
  exclusive: boolean,
  { signal, time = systemTime }: LockOptions,
): Promise<string> {
  const holder: Holder = {
    time: formatTimeNs(BigInt(Math.round(time.now() * 1e6))),
    exclusive,
    hostname: hostname(),
    username: userName(),
    pid: process.pid,
    ...(process.getuid?.() ? { uid: process.getuid() } : undefined),
    ...(process.getgid?.() ? { gid: process.getgid() } : undefined),
    process: nameProcess(process.pid),
  }
  return repository.saveJson('locks', JSON.stringify(holder), { signal })
}

function userName(): string {
  try {
    return userInfo().username
  } catch (error) {
    // An id without an entry in the user database, as in many containers.
    const fault = fromSystem(error, 'read the user name')
    if (isFault(fault)) return String(process.getuid?.() ?? '')
    throw error
  }
}

/**
 * Names a running process for all time: boot, process namespace, pid, and the tick it started at
 * (https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html, field 22). Undefined where /proc cannot tell.
 */
function nameProcess(pid: number): string | undefined {
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
    const namespace = readlinkSync('/proc/self/ns/pid')
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const start = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
    return start && `${boot} ${namespace} ${pid} ${start}`
  } catch (error) {
    if (isFault(fromSystem(error, 'read /proc'))) return undefined
    throw error
  }
}

/** Whether the holder is a process of this boot of this machine that has ended. Unsure means alive. */
function isDead(holder: Holder | undefined): boolean {
  const own = nameProcess(process.pid)
  if (!holder?.process || !own) return false
  const machine = (name: string) => name.split(' ').slice(0, 2).join(' ')
  if (machine(holder.process) !== machine(own)) return false
  return nameProcess(holder.pid) !== holder.process
}

async function releaseLock({ storage }: Lockable, id: string): Promise<void> {
  await storage.delete(lockKey(id), { signal: AbortSignal.timeout(storeMaxMs) })
}

/** A lock that stands: refreshes itself until it is disposed of. */
class HeldLock implements RepositoryLock {
  readonly signal: AbortSignal
  readonly #repository: Lockable
  readonly #exclusive: boolean
  readonly #time: Time
  readonly #lost = new AbortController()
  readonly #ended = new AbortController()
  readonly #upkeep: Promise<void>
  /** Lock files of ours that may stand: the last one, and such as could not be removed. */
  readonly #written = new Set<string>()
  #id: string
  #refreshed: { readonly wallMs: number; readonly monotonicMs: number }

  constructor(
    repository: Lockable,
    held: {
      readonly id: string
      readonly exclusive: boolean
      readonly signal: AbortSignal
      readonly time: Time
    },
  ) {
    this.#repository = repository
    this.#exclusive = held.exclusive
    this.#time = held.time
    this.#id = held.id
    this.signal = AbortSignal.any([held.signal, this.#lost.signal])
    this.#refreshed = this.#now()
    this.#written.add(held.id)
    this.#upkeep = this.#keep().catch((error: unknown) => this.#lost.abort(error))
  }

  #now(): { readonly wallMs: number; readonly monotonicMs: number } {
    return { wallMs: this.#time.now(), monotonicMs: this.#time.monotonicMs() }
  }

  /** By the clock that went further: the monotonic one stands still in sleep, the other one steps. */
  #ageMs(): number {
    const { wallMs, monotonicMs } = this.#now()
    return Math.max(wallMs - this.#refreshed.wallMs, monotonicMs - this.#refreshed.monotonicMs)
  }

  async #keep(): Promise<void> {
    const ended = this.#ended.signal
    while (!ended.aborted && !this.#lost.signal.aborted) {
      if (
        this.#ageMs() > refreshMs &&
        !(await this.#refresh()) &&
        this.#ageMs() > refreshedWithinMs
      ) {
        this.#lose('it could not be refreshed in time')
      }
      await this.#time.sleep(watchMs, ended).catch((error: unknown) => {
        if (!ended.aborted) throw error
      })
    }
  }

  #lose(why: string): void {
    const { url } = this.#repository.storage
    this.#lost.abort(new Fault('locked', `keep the lock of ${url}: ${why}`, { recovery: 'reset' }))
  }

  /**
   * Writes a new lock, then removes the old one; false when the store did not let it, to be tried again. The
   * store's times of both tell whether others could have taken the old one for stale, whatever our own clock did.
   */
  async #refresh(): Promise<boolean> {
    const { storage } = this.#repository
    const options = { signal: AbortSignal.timeout(storeMaxMs), time: this.#time }
    const begun = this.#now()
    try {
      const old = await storage.stat(lockKey(this.#id), options)
      const id = old && (await writeLock(this.#repository, this.#exclusive, options))
      if (id) this.#written.add(id)
      const fresh = id && (await storage.stat(lockKey(id), options))
      if (!old || !fresh) this.#lose('somebody has removed it')
      else if (fresh.modifiedMs - old.modifiedMs > lockStaleMs) this.#lose('it was stale meanwhile')
      else {
        this.#id = id
        this.#refreshed = begun
        await this.#remove(old.key)
      }
      return true
    } catch (error) {
      if (isFault(error) || isAbort(error)) return false
      throw error
    }
  }

  async #remove(key: string): Promise<void> {
    await this.#repository.storage.delete(key, { signal: AbortSignal.timeout(storeMaxMs) })
    this.#written.delete(key.slice(lockKey('').length))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ended.abort()
    await this.#upkeep
    for (const id of this.#written) await this.#remove(lockKey(id))
  }
}
