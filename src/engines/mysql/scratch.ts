import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, existsSync, openSync } from 'node:fs'
import { chown, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join, resolve } from 'node:path'
import { Fault, fromSystem, isFault } from '#base/faults'
import { mortal } from '#base/mortal'
import { makeFolders } from '#base/folders'
import { systemTime } from '#base/time'
import type { Endpoint } from './protocol/endpoint.ts'
import { Session } from './protocol/session.ts'

export type Family = 'mysql' | 'mariadb'

/** The programs of an installed server. */
export type Programs = {
  readonly family: Family
  readonly server: string
  /** Makes the system tables; MySQL's server does it by itself. */
  readonly install: string | undefined
  /** Options by which programs outside of the usual places find their own files. */
  readonly places: readonly string[]
}

const usualPlaces = [
  '/usr/sbin',
  '/usr/bin',
  '/usr/libexec',
  '/usr/local/mysql/bin',
  '/opt/mysql/bin',
]
const startTimeoutMs = 120_000
const stopTimeoutMs = 120_000
const programTimeoutMs = 300_000

/** Finds the programs in the folder given, else on PATH and in the usual places. */
export function findPrograms(family: Family, serverBin: string | undefined): Programs {
  const usual = [...(process.env['PATH'] ?? '').split(delimiter), ...usualPlaces]
  const folders = serverBin ? [resolve(serverBin)] : usual
  const names = family === 'mariadb' ? ['mariadbd', 'mysqld'] : ['mysqld']
  const find = (wanted: readonly string[], among = folders) =>
    wanted.flatMap((name) => among.map((folder) => join(folder, name))).find(existsSync)
  const server = find(names)
  const install = find(['mariadb-install-db', 'mysql_install_db'], [...folders, ...usual])
  if (!server || (family === 'mariadb' && !install)) {
    throw new Fault(
      'unsupported',
      `find the programs of ${family}: none in ${folders.join(', ')}`,
      {
        hint: 'Install the server, or name the folder of its programs with --server-bin.',
      },
    )
  }
  return { family, server, install, places: placesOf(server, family) }
}

/** Beside the program's folder stand its messages and plugins, wherever it was unpacked. */
function placesOf(server: string, family: Family): string[] {
  const root = resolve(server, '../..')
  for (const base of [join(root, 'root/usr'), root]) {
    const share = ['share/mysql', 'share/mariadb', 'share'].map((name) => join(base, name))
    const messages = share.find(
      (folder) =>
        existsSync(join(folder, 'english/errmsg.sys')) || existsSync(join(folder, 'errmsg.sys')),
    )
    const plugins = ['lib/mysql/plugin', 'lib64/mysql/plugin', 'lib/plugin']
      .map((name) => join(base, name))
      .find(existsSync)
    if (!messages || base === '/usr') continue
    return [
      `--basedir=${base}`,
      `--lc-messages-dir=${messages}`,
      ...(plugins ? [`--plugin-dir=${plugins}`] : []),
      ...(family === 'mysql' ? ['--secure-file-priv='] : []),
    ]
  }
  return []
}

export type ServerOptions = {
  readonly programs: Programs
  readonly dataDirectory: string
  readonly signal: AbortSignal
  /** Further options without their dashes. */
  readonly settings?: readonly string[] | undefined
  /** Listen on loopback; else on a local socket only. */
  readonly port?: number | undefined
  /** A file of settings to start with; none at all otherwise. */
  readonly defaultsFile?: string | undefined
  /** Who may open it: root without a password in a server that was just made. */
  readonly account?: { readonly user: string; readonly password: string } | undefined
  /** It is made to run on without us; any other ends with this process, whatever ends that. */
  readonly outlives?: boolean | undefined
  /** Where the server writes what it has to say; else below its scratch folder, gone with it. */
  readonly logFile?: string | undefined
}

/** As root the server runs as the owner of its data, or as nobody: it refuses root. */
export const serverUser = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : undefined

/** A folder that the server's user may write to, and nobody else. */
export async function makeServerFolder(path: string): Promise<void> {
  await makeFolders(path, 0o700)
  if (serverUser) await chown(path, serverUser.uid, serverUser.gid)
}

/** Makes the system tables in a directory that is empty or not there. */
export async function initialise(options: ServerOptions): Promise<void> {
  const { programs, dataDirectory, signal } = options
  await makeServerFolder(dataDirectory)
  const fixed = ['--no-defaults', ...programs.places, `--datadir=${dataDirectory}`]
  if (programs.install && programs.family === 'mariadb') {
    const basedir = programs.places.filter((place) => place.startsWith('--basedir'))
    await runProgram(
      programs.install,
      [
        '--no-defaults',
        ...basedir,
        `--datadir=${dataDirectory}`,
        '--auth-root-authentication-method=normal',
        '--skip-test-db',
      ],
      signal,
    )
  } else {
    await runProgram(programs.server, [...fixed, '--initialize-insecure'], signal)
  }
}

/** Runs a program of the server's to its end, as the server's user. */
export async function runProgram(
  program: string,
  args: readonly string[],
  signal: AbortSignal,
): Promise<string> {
  // A server that starts removes temporary tables of others from the folder that it shares with them.
  const folder = await mkdtemp(join(tmpdir(), 'redoubt-program-'))
  if (serverUser) await chown(folder, serverUser.uid, serverUser.gid)
  const child = spawn(...mortal([program, ...args]), {
    cwd: '/',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, HOME: '/nonexistent', TMPDIR: folder },
    timeout: programTimeoutMs,
    signal,
    ...serverUser,
  })
  let said = ''
  const keep = (bytes: Buffer) => {
    said = (said + bytes.toString()).slice(-8000)
  }
  child.stdout.on('data', keep)
  child.stderr.on('data', keep)
  const { promise, resolve: done, reject } = Promise.withResolvers<number | null>()
  child.once('error', reject)
  child.once('close', done)
  let code: number | null
  try {
    code = await promise
  } catch (error) {
    throw fromSystem(error, `run ${program}`)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
  if (code === 0) return said
  throw new Fault('engine', `run ${program}: it ended with ${code}: ${said.trim().slice(-1500)}`)
}

/** What the path of a local socket may take, its ending included. */
const socketBytesMax = 107

/**
 * For the temporary tables of a server that stays: one that starts removes those of its neighbours from a folder that it
 * shares with them. Beside its data: below it every folder is a database to MariaDB.
 */
export function temporaryFolder(dataDirectory: string): string {
  return `${resolve(dataDirectory)}.redoubt-tmp`
}

function socketIn(folder: string): string {
  return join(folder, 'redoubt.sock')
}

/** A server process on a data directory of ours. Ended with the scope. */
export class LocalServer implements AsyncDisposable {
  readonly endpoint: Endpoint
  readonly dataDirectory: string
  readonly #child: ChildProcess
  /** A folder for its socket, gone with it; undefined for a server that outlives us and keeps that in its own. */
  readonly #scratch: string | undefined

  private constructor(options: ServerOptions, child: ChildProcess, scratch: string | undefined) {
    this.dataDirectory = options.dataDirectory
    this.#child = child
    this.#scratch = scratch
    const socket = socketIn(scratch ?? options.dataDirectory)
    const shown = `${options.programs.family}://${socket}`
    const { user, password } = options.account ?? { user: 'root', password: '' }
    const place = { host: 'localhost', port: options.port ?? 0, socket }
    this.endpoint = { ...place, user, password, tls: 'disabled', shown }
  }

  static async start(options: ServerOptions): Promise<LocalServer> {
    const { programs, dataDirectory, port, signal } = options
    // Not below the data directory: the path of a local socket is short. One that is to stay needs a place that stays.
    const stays = options.outlives && Buffer.byteLength(socketIn(dataDirectory)) < socketBytesMax
    const scratch = stays ? undefined : await mkdtemp(join(tmpdir(), 'redoubt-server-'))
    if (serverUser && scratch) await chown(scratch, serverUser.uid, serverUser.gid)
    const folder = scratch ?? dataDirectory
    const temporary = scratch ?? temporaryFolder(dataDirectory)
    if (!scratch) await makeServerFolder(temporary)
    const listen = port ? [`--port=${port}`, '--bind-address=127.0.0.1'] : ['--skip-networking']
    const args = [
      options.defaultsFile ? `--defaults-file=${options.defaultsFile}` : '--no-defaults',
      ...programs.places,
      `--datadir=${dataDirectory}`,
      `--socket=${socketIn(folder)}`,
      `--pid-file=${join(folder, 'redoubt.pid')}`,
      ...listen,
      ...(options.settings ?? []).map((setting) => `--${setting}`),
    ]
    const log = openSync(options.logFile ?? join(folder, 'log'), 'a', 0o600)
    const mortally = mortal([programs.server, ...args])
    const [program, all] = options.outlives ? [programs.server, args] : mortally
    const child = spawn(program, all, {
      cwd: '/',
      stdio: ['ignore', log, log],
      env: { ...process.env, HOME: '/nonexistent', TMPDIR: temporary },
      // A group of its own: an interrupt at the terminal is ours to handle.
      detached: true,
      ...serverUser,
    })
    closeSync(log)
    const server = new LocalServer(options, child, scratch)
    try {
      await server.#untilReady(signal)
      return server
    } catch (error) {
      const said = await readFile(options.logFile ?? join(folder, 'log'), 'utf8')
      await server.kill()
      if (signal.aborted) throw error
      throw new Fault('engine', `start ${programs.server}: ${said.trim().slice(-1500)}`, {
        cause: error,
      })
    }
  }

  async #untilReady(signal: AbortSignal): Promise<void> {
    const { promise: failed, reject } = Promise.withResolvers<never>()
    failed.catch(() => undefined)
    this.#child.once('error', reject)
    const deadline = systemTime.monotonicMs() + startTimeoutMs
    for (;;) {
      try {
        const session = await Promise.race([Session.open(this.endpoint, { signal }), failed])
        await session[Symbol.asyncDispose]()
        return
      } catch (error) {
        // Not there yet, or still starting; a server with accounts of its own is up when it refuses ours.
        if (isFault(error, 'denied')) return
        const ended = this.#child.exitCode !== null || this.#child.signalCode !== null
        const waits = isFault(error, 'unreachable', 'missing') && !ended
        if (!waits || systemTime.monotonicMs() > deadline) throw error
      }
      await systemTime.sleep(50, signal)
    }
  }

  get pid(): number | undefined {
    return this.#child.pid
  }

  /** Lets the server outlive this process: nothing ends it any more. */
  release(): void {
    this.#child.unref()
  }

  /** A clean shutdown. */
  async stop(): Promise<void> {
    await this.#end('SIGTERM', stopTimeoutMs)
    if (this.#scratch) await rm(this.#scratch, { recursive: true, force: true })
  }

  async kill(): Promise<void> {
    await this.#end('SIGKILL', stopTimeoutMs)
    if (this.#scratch) await rm(this.#scratch, { recursive: true, force: true })
  }

  async #end(how: NodeJS.Signals, limitMs: number): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const { promise, resolve: done } = Promise.withResolvers<void>()
    this.#child.once('close', () => done())
    this.#child.kill(how)
    const timer = setTimeout(() => void this.#child.kill('SIGKILL'), limitMs)
    await promise
    clearTimeout(timer)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }
}

/** A loopback port that nobody listens on now. */
export async function freePort(): Promise<number> {
  const server = createServer()
  const { promise, resolve: done, reject } = Promise.withResolvers<number>()
  server.once('error', reject)
  server.listen(0, '127.0.0.1', () => {
    const address = server.address()
    server.close(() => done(typeof address === 'object' && address ? address.port : 0))
  })
  return promise
}

/** Whether a directory is there with anything in it. */
export async function isOccupied(path: string): Promise<boolean> {
  try {
    return (await readdir(path)).length > 0
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
    throw fromSystem(error, `read ${path}`)
  }
}
