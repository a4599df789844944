import assert from 'node:assert/strict'
import { silentLog } from '#base/log'
import { createProgress } from '#base/progress'
import type { Position, Target } from '#change'
import type { BaseFacts, BaseReader, Engine, LogOptions, RestoreRequest } from '#engines'
import { mysql } from '../../src/engines/mysql/mysql.ts'
import { fileNumber, formatPlace } from '../../src/engines/mysql/position.ts'
import { DirectoryBase } from './directory-base.ts'
import { MemoryLog } from './memory-log.ts'
import { Scratch } from './scratch.ts'
import type { FamilyOptions, FamilyServer } from './servers/mysql-family.ts'

/** Starts a server of the family under test. */
export type StartServer = (options?: FamilyOptions) => Promise<FamilyServer>

/** MySQL 5.6 takes no row of more than a tenth of its redo log. */
export const forLargeRows: Readonly<Record<string, string>> =
  process.env['REDOUBT_TEST_MYSQL'] === '5.6'
    ? { 'innodb-log-file-size': '400M', 'max-allowed-packet': '64M' }
    : { 'max-allowed-packet': '64M' }

const limitMs = 600_000
const waitMaxMs = 300_000

/** A source whose log is read into memory from now on, as `protect` would. */
export class Capture implements AsyncDisposable {
  readonly archive: MemoryLog
  readonly engine: Engine
  beats = 0
  failure: unknown
  readonly #stop = new AbortController()
  #running: Promise<void> = Promise.resolve()

  private constructor(engine: Engine, archive: MemoryLog) {
    this.engine = engine
    this.archive = archive
  }

  static async start(
    url: string,
    options: Partial<LogOptions> & {
      readonly archive?: MemoryLog
      readonly after?: Position
      /** Acknowledge what was taken, as after the object store has answered. */
      readonly acks?: boolean
    } = {},
  ): Promise<Capture> {
    const signal = AbortSignal.timeout(limitMs)
    const engine = await mysql.open(url, { signal, log: silentLog })
    const capture = new Capture(engine, options.archive ?? new MemoryLog())
    const source = await engine.openLog({
      log: silentLog,
      name: 'test',
      durability: 'async',
      ...options,
    })
    const { promise: reading, resolve } = Promise.withResolvers<void>()
    const run = async () => {
      const both = AbortSignal.any([signal, capture.#stop.signal])
      for await (const item of source.read(options.after, { signal: both })) {
        if (item.kind === 'beat') capture.beats += 1
        else {
          await capture.archive.append(item)
          if (options.acks) await source.ack({ history: item.history, at: item.next })
        }
        resolve()
      }
    }
    capture.#running = run().catch((error: unknown) => {
      if (!capture.#stop.signal.aborted) capture.failure = error
      resolve()
    })
    await reading
    return capture
  }

  /** Waits until the archive has all that the server has logged by now. */
  async caughtUp(server: FamilyServer): Promise<void> {
    const goal = await logEnd(server)
    await until(() => {
      if (this.failure !== undefined) throw this.failure
      const at = this.archive.durable()?.at
      return at !== undefined && at.slice(0, 23) >= goal
    }, `the archive to reach ${goal}`)
  }

  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#running
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
    await this.engine[Symbol.asyncDispose]()
  }
}

/** Number and offset of the end of the server's log. */
export async function logEnd(server: FamilyServer): Promise<string> {
  const old = server.scheme === 'mariadb' || server.version === '5.6'
  const sql = old ? 'show master status' : 'show binary log status'
  const [row] = await server.query<{ File: string; Position: number }>(sql)
  assert.ok(row)
  return formatPlace({ file: fileNumber(row.File), offset: Number(row.Position) })
}

/** Polls a condition: for what a server does in its own time. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
): Promise<void> {
  const deadline = performance.now() + waitMaxMs
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`waited ${waitMaxMs} ms for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

export type Taken = { readonly facts: BaseFacts; readonly files: DirectoryBase } & Disposable

export async function takeBase(engine: Engine, parallel = 2): Promise<Taken> {
  const scratch = new Scratch('mysql-base')
  const files = new DirectoryBase(scratch.path)
  try {
    const facts = await engine.takeBase(files, {
      signal: AbortSignal.timeout(limitMs),
      progress: createProgress('base'),
      log: silentLog,
      parallel,
    })
    return { facts, files, [Symbol.dispose]: () => scratch[Symbol.dispose]() }
  } catch (error) {
    scratch[Symbol.dispose]()
    throw error
  }
}

/** A restore request with what the tests do not care about filled in. */
export function requestOf(
  base: { readonly facts: BaseFacts; readonly files: BaseReader },
  archive: MemoryLog | undefined,
  to: string,
  more: Partial<RestoreRequest> = {},
): RestoreRequest {
  return {
    base: base.facts,
    files: base.files,
    archive,
    target: { kind: 'latest' } satisfies Target,
    to,
    only: [],
    start: false,
    force: false,
    remap: {},
    parallel: 2,
    signal: AbortSignal.timeout(limitMs),
    progress: createProgress('restore'),
    log: silentLog,
    ...more,
  }
}

/** Names and checksums of all tables of users, for comparing two servers. */
export async function checksums(server: FamilyServer): Promise<Record<string, string>> {
  const tables = await server.query<{ s: string; n: string }>(
    `select table_schema as s, table_name as n from information_schema.tables where table_type in ('BASE TABLE', 'SYSTEM VERSIONED')
     and table_schema not in ('mysql', 'sys', 'performance_schema', 'information_schema') order by 1, 2`,
  )
  const sums: Record<string, string> = {}
  for (const { s, n } of tables) {
    const name = `\`${s.replaceAll('`', '``')}\`.\`${n.replaceAll('`', '``')}\``
    const [row] = await server.query<{ Checksum: bigint | number | null }>(`checksum table ${name}`)
    const [count] = await server.query<{ c: number }>(`select count(*) as c from ${name}`)
    sums[`${s}.${n}`] = `${count?.c} rows, ${row?.Checksum}`
  }
  return sums
}

/** What a server's own file holds, with the mark of its being open taken off. */
export function closedFile(bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes)
  if (copy.length > 22) copy[21] = (copy[21] ?? 0) & ~1
  return copy
}
