import { chmod, mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { isFault } from '#base/faults'
import type { BaseFacts, RestoreRequest, RestoreResult } from '#engines'
import {
  type Address,
  openSession,
  parseAddress,
  type Session,
  withDatabase,
} from './connection.ts'
import { carriedSettings, layOutBase, type Layout, quoteSetting } from './layout.ts'
import {
  findPrograms,
  giveTo,
  majorOf,
  type Programs,
  reachablePrograms,
  serverOwner,
} from './programs.ts'
import { checkNamedTarget, recover } from './recovery.ts'
import type { StartedServer } from './server.ts'
import type { WalSupply } from './wal-supply.ts'

export type ScratchRequest = Omit<RestoreRequest, 'to' | 'start' | 'force' | 'only'>

/** Called with the laid-out folder before the server starts on it. */
type Inspect = (layout: Layout) => Promise<void>

/** A base and its log, restored into a server that only we can reach, and that is thrown away. */
export class ScratchCluster implements AsyncDisposable {
  readonly #directory: string
  readonly #address: Address
  readonly server: StartedServer
  readonly layout: Layout
  readonly result: RestoreResult
  readonly supply: WalSupply | undefined

  private constructor(
    directory: string,
    address: Address,
    layout: Layout,
    done: Awaited<ReturnType<typeof recover>>,
  ) {
    this.#directory = directory
    this.#address = address
    this.layout = layout
    this.server = done.server
    this.result = done.result
    this.supply = done.supply
  }

  /** Lays the base out below `directory`, starts a server on it and waits until it has reached the target. */
  static async restore(
    request: ScratchRequest,
    directory: string,
    inspect?: Inspect,
  ): Promise<ScratchCluster> {
    const { base } = request
    const programs = await findPrograms(majorOf(base), request.serverBin)
    await checkNamedTarget(request)
    const layout = placeBelow(directory, base)
    try {
      await mkdir(directory, { recursive: true, mode: 0o700 })
      await layOutBase({ ...request, force: false }, layout)
      await inspect?.(layout)
      return await startScratch(request, { directory, layout, programs })
    } catch (error) {
      await empty(directory)
      throw error
    }
  }

  static async begin(
    request: ScratchRequest,
    place: Place,
    preload: string,
  ): Promise<ScratchCluster> {
    const { directory, layout } = place
    const owner = await serverOwner(layout.dataDir)
    const programs = await reachablePrograms(owner, place.programs, directory)
    const sockets = path.join(directory, 's')
    await mkdir(sockets, { recursive: true, mode: 0o700 })
    await writeConfig(directory, sockets, request.base, preload)
    // The folder may be ours alone so far; what is below it is the server's.
    await chmod(directory, 0o711)
    if (owner) await giveTo(owner, directory)
    const user = encodeURIComponent(request.base.details['superuser'] ?? 'postgres')
    const url = `postgres://${user}@:5432/template1?host=${encodeURIComponent(sockets)}`
    const done = await recover(request, layout, {
      programs,
      owner,
      settings: { config_file: path.join(directory, 'scratch.conf') },
      logFile: path.join(directory, 'server.log'),
    })
    return new ScratchCluster(directory, parseAddress(url), layout, done)
  }

  address(database: string): Address {
    return withDatabase(this.#address, database)
  }

  async session(database: string, signal: AbortSignal): Promise<Session> {
    return openSession(this.address(database), { signal })
  }

  /** The databases that take connections. */
  async databases(signal: AbortSignal): Promise<string[]> {
    await using session = await this.session('template1', signal)
    const rows = await session.query(
      'select datname from pg_database where datallowconn order by datname',
      { signal },
    )
    return rows.map((row) => row['datname'] ?? '')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server.stop('immediate')
    await empty(this.#directory)
  }
}

type Place = {
  readonly directory: string
  readonly layout: Layout
  readonly programs: Programs
}

// Libraries that the source loads at its start may be missing here: most data can be read without them.
async function startScratch(request: ScratchRequest, place: Place): Promise<ScratchCluster> {
  const preload = carriedSettings(request.base)['shared_preload_libraries'] ?? ''
  try {
    return await ScratchCluster.begin(request, place, preload)
  } catch (error) {
    if (
      preload === '' ||
      !isFault(error, 'engine') ||
      !/could not (?:access|load)/.test(error.message)
    ) {
      throw error
    }
    request.log.warn('starts the scratch server without the libraries of the source', { preload })
    return ScratchCluster.begin(request, place, '')
  }
}

/** Everything below one directory, the tablespaces too. */
function placeBelow(directory: string, base: BaseFacts): Layout {
  const known = JSON.parse(base.details['tablespaces'] ?? '{}') as Record<string, string>
  const spaces = Object.keys(known).map(
    (oid) => [oid, path.join(directory, 'tablespaces', oid)] as const,
  )
  return { dataDir: path.join(directory, 'data'), tablespaces: new Map(spaces), scratch: true }
}

// Nothing of the source's own configuration counts: its memory, its network, its archive_command.
async function writeConfig(
  directory: string,
  sockets: string,
  base: BaseFacts,
  preload: string,
): Promise<void> {
  const carried = carriedSettings(base)
  const settings: Record<string, string> = {
    port: '5432',
    listen_addresses: '',
    unix_socket_directories: sockets,
    unix_socket_permissions: '0700',
    hba_file: path.join(directory, 'hba.conf'),
    ident_file: path.join(directory, 'ident.conf'),
    shared_preload_libraries: preload,
    shared_buffers: '128MB',
    hot_standby: 'off',
    archive_mode: 'off',
    autovacuum: 'off',
    // It is thrown away: a crash of the machine costs nothing but another try.
    fsync: 'off',
    full_page_writes: 'off',
    logging_collector: 'off',
    log_destination: 'stderr',
    max_wal_size: '4GB',
  }
  const names = ['max_prepared_transactions', 'max_connections', 'max_locks_per_transaction']
  for (const name of [...names, 'max_worker_processes', 'max_wal_senders', 'wal_level']) {
    const value = carried[name]
    if (value !== undefined) settings[name] = value
  }
  const text = Object.entries(settings).map(([name, value]) => `${name} = ${quoteSetting(value)}\n`)
  await writeFile(path.join(directory, 'scratch.conf'), text.join(''), { mode: 0o600 })
  await writeFile(path.join(directory, 'hba.conf'), 'local all all trust\n', { mode: 0o600 })
  await writeFile(path.join(directory, 'ident.conf'), '', { mode: 0o600 })
}

async function empty(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    await rm(path.join(directory, name), { recursive: true, force: true })
  }
}
