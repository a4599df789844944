import type { Duplex } from 'node:stream'
import pg from 'pg'
import { Fault } from '#base/faults'
import { ArenaSocket } from './protocol/arena-socket.ts'
import { fromPostgres } from './protocol/faults.ts'
import { Wire } from './protocol/wire.ts'

type SslMode = 'disable' | 'prefer' | 'require' | 'verify-ca' | 'verify-full'

/** How to reach a cluster: what a `postgres://` URL says. */
export type Address = {
  readonly hosts: readonly { readonly host: string; readonly port: number }[]
  readonly user: string
  readonly password: string | undefined
  readonly database: string
  readonly sslMode: SslMode
  readonly sslRootCert: string | undefined
  readonly sslCert: string | undefined
  readonly sslKey: string | undefined
  /** For messages: no password in it. */
  readonly shown: string
}

const connectTimeoutMs = 10_000
const keepAliveMs = 10_000
const sslModes: readonly string[] = ['disable', 'prefer', 'require', 'verify-ca', 'verify-full']
const knownParameters = ['host', 'sslmode', 'sslrootcert', 'sslcert', 'sslkey']

/**
 * Reads `postgres://user:password@host:port,host2/database?sslmode=...`: libpq's form, several hosts included;
 * `host=/run/postgresql` in the query names a socket folder.
 */
export function parseAddress(url: string): Address {
  const match = /^postgres(?:ql)?:\/\/(?:([^@/?]*)@)?([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/.exec(url)
  if (!match) throw new Fault('usage', 'read the source URL: it is no postgres:// URL')
  const [, login = '', places = '', path = '', query = ''] = match
  const [name = '', ...secret] = login.split(':')
  const parameters = new URLSearchParams(query)
  for (const key of parameters.keys()) {
    if (!knownParameters.includes(key)) {
      throw new Fault('usage', `read the source URL: unknown parameter ${key}`, {
        hint: `Known are ${knownParameters.join(', ')}.`,
      })
    }
  }
  const hosts = parseHosts(places, parameters.get('host') ?? undefined)
  const sslMode = parameters.get('sslmode') ?? (hosts.every(isLocal) ? 'disable' : 'prefer')
  if (!sslModes.includes(sslMode)) {
    throw new Fault('usage', `read the source URL: sslmode ${sslMode} is unknown`, {
      hint: `Use one of ${sslModes.join(', ')}.`,
    })
  }
  const user = decode(name) || process.env['PGUSER'] || 'postgres'
  const database = decode(path) || 'postgres'
  return {
    hosts,
    user,
    password: secret.length > 0 ? decode(secret.join(':')) : process.env['PGPASSWORD'],
    database,
    sslMode: sslMode as SslMode,
    sslRootCert: parameters.get('sslrootcert') ?? undefined,
    sslCert: parameters.get('sslcert') ?? undefined,
    sslKey: parameters.get('sslkey') ?? undefined,
    shown: `postgres://${user}@${hosts.map((at) => `${at.host}:${at.port}`).join(',')}/${database}`,
  }
}

function parseHosts(places: string, socketHost: string | undefined): Address['hosts'] {
  const hosts = places.split(',').map((place) => {
    const match = /^(\[[^\]]*\]|[^:]*)(?::(\d+))?$/.exec(place)
    if (!match)
      throw new Fault('usage', `read the source URL: no host and port in ${JSON.stringify(place)}`)
    const host = decode(match[1] ?? '').replace(/^\[(.*)\]$/, '$1')
    return { host: socketHost ?? (host || '127.0.0.1'), port: Number(match[2] ?? 5432) }
  })
  return hosts
}

function isLocal(at: { readonly host: string }): boolean {
  return (
    at.host.startsWith('/') || ['localhost', '::1'].includes(at.host) || at.host.startsWith('127.')
  )
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch (error) {
    throw new Fault('usage', 'read the source URL: a percent escape is broken', { cause: error })
  }
}

/** Another database of the same cluster. */
export function withDatabase(address: Address, database: string): Address {
  return { ...address, database }
}

/** An ordinary SQL session, one statement at a time. */
export class Session implements AsyncDisposable {
  readonly #client: pg.Client
  readonly #shown: string
  #lost: Error | undefined

  constructor(client: pg.Client, shown: string) {
    this.#client = client
    this.#shown = shown
    client.on('error', (error) => {
      this.#lost = error
    })
  }

  get alive(): boolean {
    return this.#lost === undefined
  }

  /** Runs a statement; an abort ends the session. Numbers, times and all else come as text. */
  async query(
    sql: string,
    options: { readonly signal: AbortSignal; readonly values?: readonly unknown[]; doing?: string },
  ): Promise<Record<string, string | null>[]> {
    const { signal, values = [], doing = `ask ${this.#shown}` } = options
    signal.throwIfAborted()
    const stop = () => streamOf(this.#client).destroy()
    signal.addEventListener('abort', stop, { once: true })
    try {
      const types = { getTypeParser: () => (text: string | Buffer) => String(text) }
      const result = await this.#client.query<Record<string, string | null>>({
        text: sql,
        values: [...values],
        types: types as unknown as pg.CustomTypesConfig,
      })
      return result.rows
    } catch (error) {
      signal.throwIfAborted()
      throw fromPostgres(error, doing)
    } finally {
      signal.removeEventListener('abort', stop)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#lost !== undefined) return
    await this.#client.end()
  }
}

type ConnectOptions = {
  readonly signal: AbortSignal
  /** Shown in pg_stat_activity and matched by synchronous_standby_names. */
  readonly applicationName?: string | undefined
  /** Where a plain connection reads to, for whoever copies at once what comes. */
  readonly arena?: ArenaSocket | undefined
}

/** The startup parameter that makes a walsender of a session: a physical one, or one that knows a database. */
type Replication = 'true' | 'database' | undefined

/** Opens an SQL session. */
export async function openSession(address: Address, options: ConnectOptions): Promise<Session> {
  return new Session(await connectAny(address, options, undefined), address.shown)
}

/** Opens a connection to a walsender: the replication commands, and COPY streams as frames. */
export async function openWalSender(address: Address, options: ConnectOptions): Promise<Wire> {
  return takeWire(await connectAny(address, options, 'true'), address)
}

/**
 * As `openWalSender`, for bulk: the bytes of a message are written over when more have been asked for and another 4 MiB
 * have come. Over TLS, or when another host answers at last, it is an ordinary connection.
 */
export async function openBulkSender(address: Address, options: ConnectOptions): Promise<Wire> {
  const arena = new ArenaSocket()
  return takeWire(await connectAny(address, { ...options, arena }, 'true'), address, arena)
}

/** Opens a connection to a walsender that knows a database, as logical slots need it. */
export async function openLogicalSender(address: Address, options: ConnectOptions): Promise<Wire> {
  return takeWire(await connectAny(address, options, 'database'), address)
}

/** A walsender that knows a database, for a stream of changes: as `openBulkSender`. */
export async function openChangeSender(address: Address, options: ConnectOptions): Promise<Wire> {
  const arena = new ArenaSocket()
  return takeWire(await connectAny(address, { ...options, arena }, 'database'), address, arena)
}

/** An ordinary connection as frames, for bulk that is read: as `openBulkSender`. */
export async function openBulkWire(address: Address, options: ConnectOptions): Promise<Wire> {
  const arena = new ArenaSocket()
  return takeWire(await connectAny(address, { ...options, arena }, undefined), address, arena)
}

/** Opens an ordinary connection as frames, for COPY. */
export async function openWire(address: Address, options: ConnectOptions): Promise<Wire> {
  return takeWire(await connectAny(address, options, undefined), address)
}

// The library has done the handshake, the password and TLS; from here on the socket is ours.
function takeWire(client: pg.Client, address: Address, arena?: ArenaSocket): Wire {
  const stream = streamOf(client)
  stream.removeAllListeners('data')
  stream.removeAllListeners('end')
  stream.removeAllListeners('close')
  client.on('error', () => undefined)
  return new Wire(stream, address.shown, arena && (() => arena.drained()))
}

function streamOf(client: pg.Client): Duplex {
  return (client as unknown as { readonly connection: { readonly stream: Duplex } }).connection
    .stream
}

// Of several hosts the one that takes writes is meant: after a failover that is another one than before.
async function connectAny(
  address: Address,
  options: ConnectOptions,
  replication: Replication,
): Promise<pg.Client> {
  const failures: unknown[] = []
  let standby: number | undefined
  for (const [index, at] of address.hosts.entries()) {
    try {
      if (address.hosts.length > 1 && (await isStandby(address, at, options))) {
        standby ??= index
        continue
      }
      return await connect(address, at, options, replication)
    } catch (error) {
      options.signal.throwIfAborted()
      failures.push(error)
    }
  }
  const second = standby === undefined ? undefined : address.hosts[standby]
  if (second) return connect(address, second, options, replication)
  throw failures[0]
}

async function isStandby(
  address: Address,
  at: Address['hosts'][number],
  options: ConnectOptions,
): Promise<boolean> {
  const client = await connect(address, at, { ...options, arena: undefined }, undefined)
  await using session = new Session(client, address.shown)
  const [row] = await session.query('select pg_is_in_recovery() as standby', options)
  return row?.['standby'] === 't'
}

async function connect(
  address: Address,
  at: Address['hosts'][number],
  options: ConnectOptions,
  replication: Replication,
): Promise<pg.Client> {
  if (address.sslMode !== 'prefer') return dial(address, at, options, replication)
  try {
    return await dial({ ...address, sslMode: 'require' }, at, options, replication)
  } catch (error) {
    // The library has no code for a server without TLS, only these words.
    const words = error instanceof Fault && error.cause instanceof Error ? error.cause.message : ''
    if (!words.includes('does not support SSL')) throw error
    return dial({ ...address, sslMode: 'disable' }, at, options, replication)
  }
}

async function dial(
  address: Address,
  at: Address['hosts'][number],
  options: ConnectOptions,
  replication: Replication,
): Promise<pg.Client> {
  const { signal, applicationName = 'redoubt', arena } = options
  signal.throwIfAborted()
  const ssl = await sslOptions(address)
  const config: pg.ClientConfig & { replication?: string } = {
    host: at.host,
    port: at.port,
    user: address.user,
    database: address.database,
    application_name: applicationName,
    connectionTimeoutMillis: connectTimeoutMs,
    keepAlive: true,
    keepAliveInitialDelayMillis: keepAliveMs,
    ssl,
    ...(address.password === undefined ? {} : { password: address.password }),
    ...(replication ? { replication } : {}),
    ...(arena && ssl === false && arena.socket.pending && !arena.socket.destroyed
      ? { stream: () => arena.socket }
      : {}),
  }
  const client = new pg.Client(config)
  const stop = () => streamOf(client).destroy()
  signal.addEventListener('abort', stop, { once: true })
  try {
    await client.connect()
    return client
  } catch (error) {
    signal.throwIfAborted()
    streamOf(client).destroy()
    const where = `postgres://${address.user}@${at.host}:${at.port}/${address.database}`
    const fault = fromPostgres(error, `connect to ${where}`)
    throw replication ? withReplicationHint(fault, address) : fault
  } finally {
    signal.removeEventListener('abort', stop)
  }
}

function withReplicationHint(error: unknown, address: Address): unknown {
  if (!(error instanceof Fault) || error.code !== 'denied') return error
  const user = address.user
  return new Fault('denied', error.message, {
    cause: error,
    hint: `The role needs the REPLICATION right (ALTER ROLE "${user}" REPLICATION) and pg_hba.conf a line "hostssl replication ${user} <this host> scram-sha-256".`,
  })
}

async function sslOptions(address: Address): Promise<pg.ClientConfig['ssl']> {
  if (address.sslMode === 'disable') return false
  const { readFile } = await import('node:fs/promises')
  const read = async (path: string | undefined) =>
    path === undefined ? undefined : readFile(path, 'utf8')
  const [ca, cert, key] = await Promise.all([
    read(address.sslRootCert),
    read(address.sslCert),
    read(address.sslKey),
  ])
  const verify = address.sslMode.startsWith('verify') || ca !== undefined
  return {
    rejectUnauthorized: verify,
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(address.sslMode === 'verify-ca' ? { checkServerIdentity: () => undefined } : {}),
  }
}
