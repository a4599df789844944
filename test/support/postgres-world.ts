import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { silentLog } from '#base/log'
import { createProgress } from '#base/progress'
import type { Target } from '#change'
import type { BaseFacts, RestoreRequest, RestoreResult } from '#engines'
import { parseLsn, toAt } from '../../src/engines/postgres/lsn.ts'
import { postgres } from '../../src/engines/postgres/postgres.ts'
import { DirectoryBase } from './directory-base.ts'
import { MemoryLog } from './memory-log.ts'
import { type PostgresServer, startPostgres } from './servers/postgres.ts'

/** A server whose log is archived in memory while it works, and a base of it. */
export class World implements AsyncDisposable {
  readonly log = new MemoryLog()
  readonly server: PostgresServer
  base!: DirectoryBase
  facts!: BaseFacts
  #stop = new AbortController()
  #pump: Promise<void> | undefined
  #folders = 0

  constructor(server: PostgresServer) {
    this.server = server
  }

  static async begin(options: Parameters<typeof startPostgres>[0] = {}): Promise<World> {
    // Its ANALYZE commits too: tests count commits.
    const settings = { autovacuum: 'off', ...options.settings }
    const server = await startPostgres({ initdb: ['--wal-segsize=1'], ...options, settings })
    const world = new World(server)
    await world.archive()
    await world.takeBase()
    return world
  }

  async archive(url = this.server.url): Promise<void> {
    this.#stop = new AbortController()
    const { signal } = this.#stop
    const engine = await postgres.open(url, { signal, log: silentLog })
    const source = await engine.openLog({ log: silentLog, name: 'shop', durability: 'async' })
    const run = async () => {
      for await (const item of source.read(this.log.durable(), { signal })) {
        if (item.kind !== 'block') continue
        await this.log.append(item)
        await source.ack({ history: item.history, at: item.next })
      }
    }
    this.#pump = run().catch((error: unknown) => {
      if (!signal.aborted) throw error
    })
    this.#pump.catch(() => undefined)
  }

  async takeBase(): Promise<void> {
    this.base = new DirectoryBase(this.folder())
    await using engine = await postgres.open(this.server.url, {
      signal: AbortSignal.timeout(600_000),
      log: silentLog,
    })
    this.facts = await engine.takeBase(this.base, {
      signal: AbortSignal.timeout(600_000),
      progress: createProgress('base'),
      log: silentLog,
      parallel: 2,
    })
  }

  /** Waits until all that the server has flushed is archived. */
  async caughtUp(server = this.server): Promise<void> {
    const [row] = await server.query<{ lsn: string }>('select pg_current_wal_flush_lsn() as lsn')
    const wanted = toAt(parseLsn(row?.lsn ?? ''))
    while ((this.log.durable()?.at ?? '') < wanted) await delay(5)
  }

  folder(): string {
    this.#folders += 1
    return this.server.makeFolder(`folder-${this.#folders}`)
  }

  async stopArchiving(): Promise<void> {
    this.#stop.abort()
    await this.#pump
  }

  request(target: Target, more: Partial<RestoreRequest> = {}): RestoreRequest {
    return {
      base: this.facts,
      files: this.base,
      archive: this.log,
      target,
      to: this.folder(),
      only: [],
      start: true,
      force: false,
      remap: {},
      serverBin: this.server.bin,
      parallel: 2,
      signal: AbortSignal.timeout(600_000),
      progress: createProgress('restore'),
      log: silentLog,
      ...more,
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopArchiving()
    await this.server[Symbol.asyncDispose]()
  }
}

/** Restores, lets `look` see the server, and ends it. */
export async function restored<T>(
  request: RestoreRequest,
  look: (client: pg.Client, result: RestoreResult) => Promise<T>,
): Promise<T> {
  const result = await postgres.restore(request)
  const pid = Number(readFileSync(path.join(request.to, 'postmaster.pid'), 'utf8').split('\n')[0])
  const port = Number(new URL(result.url ?? '').port)
  const client = new pg.Client({ host: request.to, port, user: 'postgres', database: 'postgres' })
  try {
    await client.connect()
    return await look(client, result)
  } finally {
    await client.end()
    process.kill(pid, 'SIGQUIT')
    while (existsSync(path.join(request.to, 'postmaster.pid'))) await delay(10)
  }
}
