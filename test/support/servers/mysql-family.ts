import { dirname } from 'node:path'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import mysql from 'mysql2/promise'
import { Scratch } from '../scratch.ts'
import { copyInitialised } from './data-cache.ts'
import {
  ServerProcess,
  giveToServerUser,
  runAsServerUser,
  untilReady,
  withFreePort,
} from './process.ts'

export type FamilyOptions = {
  /** Server options without their dashes: `{'binlog-format': 'STATEMENT'}`; true for one without a value. */
  readonly settings?: Readonly<Record<string, string | true>> | undefined
  /** A data folder that is there already (a restored one): used in place, and left there. */
  readonly dataDir?: string | undefined
  readonly env?: Readonly<Record<string, string>> | undefined
  readonly port?: number | undefined
  readonly readyMs?: number | undefined
}

/** What sets one server of the family apart from the others. */
export type Flavor = {
  readonly scheme: 'mysql' | 'mariadb'
  readonly version: string
  /** Names the cache of the initialised data folder. */
  readonly key: string
  readonly server: string
  readonly bin: string
  /** Options that the programs need to find their own files. */
  readonly places: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly settings: Readonly<Record<string, string | true>>
  /** Makes the system tables; may leave root without a password. */
  readonly initialise: (folder: string) => void
  /** Statements that give root its password and let it in over TCP. */
  readonly users: readonly string[]
}

export const rootPassword = 'dolphin-secret'

export async function startFamily(flavor: Flavor, options: FamilyOptions): Promise<FamilyServer> {
  const scratch = new Scratch(flavor.scheme)
  const dataDir = options.dataDir ?? scratch.join('data')
  const server = new FamilyServer(flavor, scratch, dataDir, options)
  try {
    giveToServerUser(scratch.path)
    if (options.dataDir) giveToServerUser(dataDir)
    else {
      await copyInitialised(flavor.key, dataDir, (folder) => initialise(flavor, folder))
      // Each copy is a server of its own and makes a new UUID.
      rmSync(`${dataDir}/auto.cnf`, { force: true })
    }
    await server.start()
  } catch (error) {
    await server[Symbol.asyncDispose]()
    throw error
  }
  return server
}

/** Makes the system tables, then runs the server once without a log to set the users. */
async function initialise(flavor: Flavor, folder: string): Promise<void> {
  flavor.initialise(folder)
  using scratch = new Scratch('init')
  giveToServerUser(scratch.path)
  const settings = { 'skip-networking': true, 'skip-log-bin': true } as const
  const plain = { ...flavor, settings: flavor.scheme === 'mysql' ? { 'gtid-mode': 'OFF' } : {} }
  const server = new FamilyServer(plain, scratch, folder, { settings })
  await server.startFirst()
  await using client = await server.connectSocket('')
  for (const statement of flavor.users) await client.query(statement)
  await server.stop()
}

/** How a server that is starting answers, or does not. */
const notYet = [
  'ECONNREFUSED',
  'ECONNRESET',
  'ENOENT',
  'EACCES',
  'EAGAIN',
  'EPIPE',
  'ETIMEDOUT',
  'PROTOCOL_CONNECTION_LOST',
]

/** A private MariaDB or MySQL on loopback. */
export class FamilyServer implements AsyncDisposable {
  readonly version: string
  readonly scheme: 'mysql' | 'mariadb'
  readonly dataDir: string
  /** The folder of the server's own programs. */
  readonly bin: string
  readonly #flavor: Flavor
  readonly #scratch: Scratch
  readonly #options: FamilyOptions
  #settings: Readonly<Record<string, string | true>>
  #port: number
  #process: ServerProcess | undefined

  constructor(flavor: Flavor, scratch: Scratch, dataDir: string, options: FamilyOptions) {
    this.version = flavor.version
    this.scheme = flavor.scheme
    this.bin = flavor.bin
    this.dataDir = dataDir
    this.#flavor = flavor
    this.#scratch = scratch
    this.#options = options
    const serverId = String(1 + Math.floor(Math.random() * 2 ** 31))
    this.#settings = { 'server-id': serverId, ...flavor.settings, ...options.settings }
    this.#port = options.port ?? 0
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

  /** root, with the password. */
  get url(): string {
    return this.urlOf('')
  }

  get socket(): string {
    return this.#scratch.join('s')
  }

  urlOf(database: string, user = 'root', password = rootPassword): string {
    return `${this.scheme}://${user}:${password}@127.0.0.1:${this.#port}/${encodeURIComponent(database)}`
  }

  /** What the server wrote, the end of it. */
  log(): string {
    return readFileSync(this.#logFile, 'utf8').slice(-20_000)
  }

  get #logFile(): string {
    return this.#scratch.join('log')
  }

  async start(): Promise<void> {
    writeFileSync(this.#logFile, '', { flag: 'a' })
    if (this.#port !== 0) return this.#startAt(this.#port)
    const taken = () => /Can't start server: Bind on TCP|Address already in use/.test(this.log())
    return withFreePort((port) => this.#startAt(port), taken)
  }

  /** The start at which root has no password yet and only the socket is open. */
  async startFirst(): Promise<void> {
    writeFileSync(this.#logFile, '', { flag: 'a' })
    await this.#launch(0, '')
  }

  async #startAt(port: number): Promise<void> {
    this.#port = port
    await this.#launch(port, rootPassword)
  }

  async #launch(port: number, password: string): Promise<void> {
    const { places, server, env } = this.#flavor
    const listen = port === 0 ? [] : [`--port=${port}`, '--bind-address=127.0.0.1']
    const fixed = [`--datadir=${this.dataDir}`, `--socket=${this.socket}`, ...listen]
    const pid = `--pid-file=${this.#scratch.join('pid')}`
    // Its own: a server that starts removes whatever temporary tables lie there, those of its neighbours too.
    const tmp = `--tmpdir=${dirname(this.socket)}`
    const flags = Object.entries(this.#settings).map(([name, value]) =>
      value === true ? `--${name}` : `--${name}=${value}`,
    )
    const command = [server, '--no-defaults', ...places, ...fixed, pid, tmp, ...flags]
    this.#process = new ServerProcess(command, this.#logFile, { ...env, ...this.#options.env })
    try {
      await untilReady(this.#process, () => this.#answers(password), this.#options.readyMs)
    } catch (error) {
      await this.#process.kill9()
      if (error instanceof Error) error.message += `\n${this.log().slice(-3000)}`
      throw error
    }
  }

  async #answers(password: string): Promise<boolean> {
    try {
      await using client = await this.connectSocket(password)
      await client.query('select 1')
      return true
    } catch (error) {
      const code = (error as { code?: string }).code ?? ''
      if (notYet.includes(code)) return false
      throw error
    }
  }

  /** A connection over the socket, for setting up. */
  async connectSocket(password = rootPassword): Promise<mysql.Connection & AsyncDisposable> {
    return connect({ socketPath: this.socket, user: 'root', password })
  }

  /** A connection of its own over TCP, ended with the scope. */
  async connect(database?: string): Promise<mysql.Connection & AsyncDisposable> {
    const address = { host: '127.0.0.1', port: this.#port, user: 'root', password: rootPassword }
    return connect(database === undefined ? address : { ...address, database })
  }

  /** Runs statements and returns the last one's rows. */
  async query<Row = Record<string, unknown>>(
    sql: string,
    values: readonly unknown[] = [],
    database?: string,
  ): Promise<Row[]> {
    await using client = await this.connect(database)
    const [result, fields] = await client.query(sql, [...values])
    const many = Array.isArray(fields) && fields.some((field) => Array.isArray(field) || !field)
    return (many && Array.isArray(result) ? result.at(-1) : result) as Row[]
  }

  /** A clean shutdown. */
  async stop(): Promise<void> {
    await this.#process?.end('SIGTERM')
  }

  async kill9(): Promise<void> {
    await this.#process?.kill9()
  }

  /** Stops it if it runs and starts it at the same port, with other settings if wanted. */
  async restart(settings: Readonly<Record<string, string | true>> = {}): Promise<void> {
    await this.stop()
    this.#settings = { ...this.#settings, ...settings }
    await this.start()
  }

  /** A stock tool of this server (`mariadb-backup`, `mysqlbinlog`) as the servers' user, without defaults files. */
  tool(name: string, ...args: readonly string[]): string {
    return runAsServerUser([`${this.bin}/${name}`, '--no-defaults', ...args], {
      env: { MYSQL_PWD: rootPassword },
    })
  }

  /** The arguments that bring a stock client to this server; the password is in `tool`'s environment. */
  get clientArgs(): string[] {
    return ['--host=127.0.0.1', `--port=${this.#port}`, '--user=root']
  }

  /** A folder below the server's scratch that belongs to its user. */
  makeFolder(name: string): string {
    const folder = this.#scratch.join(name)
    runAsServerUser(['mkdir', '-p', folder])
    return folder
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process?.kill9()
    this.#scratch[Symbol.dispose]()
  }
}

async function connect(
  options: mysql.ConnectionOptions,
): Promise<mysql.Connection & AsyncDisposable> {
  const client = await mysql.createConnection({
    multipleStatements: true,
    supportBigNumbers: true,
    bigNumberStrings: false,
    dateStrings: true,
    charset: 'utf8mb4',
    connectTimeout: 120_000,
    ...options,
  })
  // A killed server ends idle connections: the next query tells of it.
  client.on('error', () => undefined)
  return Object.assign(client, {
    [Symbol.asyncDispose]: async () => client.destroy(),
  })
}
