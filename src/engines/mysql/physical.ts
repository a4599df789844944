import { spawn } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join, posix } from 'node:path'
import type { BlockWriter } from '#base/blocks'
import { Fault, fromSystem } from '#base/faults'
import { mortal } from '#base/mortal'
import { systemTime } from '#base/time'
import type { BaseFacts, BaseOptions, BaseSink } from '#engines'
import { readForeignKeys, type Source } from './base.ts'
import { fromUserTables } from './catalog.ts'
import { readStamp } from './dump.ts'
import type { Flavor } from './flavor.ts'
import { chooseHistory } from './history.ts'
import { fileEntry, folderEntry } from './layout.ts'
import { beginning, fileNumber, formatPlace } from './position.ts'
import type { Endpoint } from './protocol/endpoint.ts'
import { Session } from './protocol/session.ts'
import { ProgramOutput } from './program-output.ts'
import { readXbstream } from './xbstream.ts'

export const physicalLayout = 'xbstream-1'

/** One for each thread of the program, and some to spare. */
const openFilesMax = 256
const infoMaxBytes = 64 * 1024
const infoNames = new Set(['xtrabackup_binlog_info', 'mariadb_backup_binlog_info'])

/** The program that copies data files while the server writes them. */
export function findBackupProgram(family: Flavor['family'], folder?: string): string {
  const names = family === 'mariadb' ? ['mariadb-backup', 'mariabackup'] : ['xtrabackup']
  const folders = folder ? [folder] : (process.env['PATH'] ?? '').split(delimiter)
  const found = names.flatMap((name) => folders.map((one) => join(one, name))).find(existsSync)
  if (found) return found
  throw new Fault('unsupported', `find ${names[0]}: it is not in ${folders.join(', ')}`, {
    hint: `Install ${names[0]} of the server's own version, or take a logical base.`,
  })
}

/**
 * Copies the data files through mariadb-backup or xtrabackup, which must run on the server's own machine. They are
 * kept as they came and prepared when they are restored.
 */
export async function takePhysicalBase(
  source: Source,
  sink: BaseSink,
  options: BaseOptions,
): Promise<BaseFacts> {
  const { signal, progress } = options
  const program = findBackupProgram(source.flavor.family)
  const startedUs = BigInt(systemTime.now()) * 1000n
  await using session = await Session.open(source.endpoint, { signal })
  const row = await session.one('SELECT @@global.datadir', { signal })
  const folder = await mkdtemp(join(tmpdir(), 'redoubt-backup-'))
  try {
    const file = join(folder, 'client.cnf')
    await writeFile(file, clientSettings(source.endpoint), { mode: 0o600 })
    progress.phase = 'copy data files'
    const args = [
      `--defaults-file=${file}`,
      '--backup',
      '--stream=xbstream',
      `--target-dir=${folder}`,
      `--datadir=${row?.[0] ?? ''}`,
      `--parallel=${options.parallel}`,
      ...(options.limitBytesPerSecond
        ? [`--throttle=${throttle(options.limitBytesPerSecond)}`]
        : []),
    ]
    const taken = await runBackup(program, args, sink, startedUs, signal)
    return await describe(source, taken, startedUs, options)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** The program counts in pairs of 1 MiB read and written a second. */
function throttle(bytesPerSecond: number): number {
  return Math.max(1, Math.round(bytesPerSecond / (1024 * 1024)))
}

/** In a file: arguments can be read by every user of the machine. */
function clientSettings(endpoint: Endpoint): string {
  const { socket, host, port, user, password } = endpoint
  const quote = (text: string) => `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`
  const where = socket ? [`socket=${quote(socket)}`] : [`host=${quote(host)}`, `port=${port}`]
  return ['[client]', ...where, `user=${quote(user)}`, `password=${quote(password)}`, ''].join('\n')
}

type Taken = { readonly info: string; readonly sizeBytes: bigint }

async function runBackup(
  program: string,
  args: readonly string[],
  sink: BaseSink,
  timeUs: bigint,
  signal: AbortSignal,
): Promise<Taken> {
  await using output = await ProgramOutput.open()
  const child = spawn(...mortal([program, ...args]), {
    cwd: '/',
    stdio: ['ignore', output.end, 'pipe'],
  })
  output.handedOver()
  let said = ''
  child.stderr?.on('data', (bytes: Buffer) => {
    said = (said + bytes.toString()).slice(-8000)
  })
  const { promise: ended, resolve, reject } = Promise.withResolvers<number | null>()
  child.once('error', reject)
  child.once('close', resolve)
  ended.catch(() => undefined)
  const abort = () => void child.kill('SIGTERM')
  signal.addEventListener('abort', abort, { once: true })
  let taken: Taken | undefined
  let failure: unknown
  try {
    taken = await new Spread(sink, timeUs).run(output.read(), signal)
  } catch (error) {
    failure = error
    child.kill('SIGTERM')
  } finally {
    signal.removeEventListener('abort', abort)
  }
  const code = await ended.catch((error: unknown) => {
    throw fromSystem(error, `run ${program}`)
  })
  signal.throwIfAborted()
  if (code !== 0 || !taken) {
    const end = said.trim().split('\n').slice(-6).join('\n')
    throw new Fault('engine', `run ${program}: it ended with ${code}: ${end}`, {
      hint: 'It must run on the machine of the server, as a user who may read its data files.',
      cause: failure,
    })
  }
  if (failure !== undefined) throw failure
  return taken
}

type OpenFile = { readonly writer: BlockWriter; readonly isInfo: boolean }

/** Writes each file of the stream in blocks: its pages change in place. Several are open side by side. */
class Spread {
  readonly #sink: BaseSink
  readonly #timeUs: bigint
  readonly #open = new Map<string, OpenFile>()
  readonly #folders = new Set<string>()
  /** Files whose last blocks are on their way to the store: bounded by the sink's blocks. */
  readonly #ending = new Set<Promise<void>>()
  #failure: { readonly error: unknown } | undefined
  #info = ''
  #sizeBytes = 0n

  constructor(sink: BaseSink, timeUs: bigint) {
    this.#sink = sink
    this.#timeUs = timeUs
  }

  async run(stream: AsyncIterable<Buffer>, signal: AbortSignal): Promise<Taken> {
    try {
      for await (const { path, bytes } of readXbstream(stream)) {
        signal.throwIfAborted()
        if (this.#failure) throw this.#failure.error
        const file = this.#open.get(path) ?? (await this.#begin(path))
        if (!bytes) this.#end(path, file.writer)
        else await this.#take(file, bytes)
      }
    } finally {
      await Promise.all(this.#ending)
    }
    if (this.#failure) throw this.#failure.error
    if (this.#open.size > 0) {
      throw new Fault('protocol', `read backup stream: ${[...this.#open.keys()][0]} has no end`)
    }
    return { info: this.#info, sizeBytes: this.#sizeBytes }
  }

  async #begin(path: string): Promise<OpenFile> {
    if (this.#open.size >= openFilesMax) {
      throw new Fault('protocol', `read backup stream: ${this.#open.size} files are open in it`)
    }
    const at = safePath(path)
    await makeFolders(this.#sink, this.#folders, dirname(at), this.#timeUs)
    const writer = this.#sink.blocks(at, fileEntry(this.#timeUs))
    const file = { writer, isInfo: infoNames.has(at) }
    this.#open.set(path, file)
    return file
  }

  async #take({ writer, isInfo }: OpenFile, bytes: Buffer): Promise<void> {
    this.#sizeBytes += BigInt(bytes.length)
    if (isInfo && this.#info.length + bytes.length < infoMaxBytes) this.#info += bytes.toString()
    const room = writer.write(bytes)
    if (room) await room
  }

  #end(path: string, writer: BlockWriter): void {
    this.#open.delete(path)
    const ending: Promise<void> = writer
      .end()
      .then(() => undefined)
      .catch((error: unknown) => {
        this.#failure ??= { error }
      })
      .finally(() => this.#ending.delete(ending))
    this.#ending.add(ending)
  }
}

/** Paths come from a program: none may lead out of the base. */
function safePath(path: string): string {
  const clean = posix.normalize(path)
  if (clean.startsWith('/') || clean.split('/').includes('..')) {
    throw new Fault('protocol', `read backup stream: a path leads elsewhere: ${path}`)
  }
  return clean
}

async function makeFolders(
  sink: BaseSink,
  made: Set<string>,
  folder: string,
  timeUs: bigint,
): Promise<void> {
  if (folder === '.' || made.has(folder)) return
  await makeFolders(sink, made, dirname(folder), timeUs)
  made.add(folder)
  await sink.node(folder, folderEntry(timeUs))
}

async function describe(
  source: Source,
  taken: Taken,
  startedUs: bigint,
  { signal, known }: Pick<BaseOptions, 'signal' | 'known'>,
): Promise<BaseFacts> {
  const { flavor, endpoint } = source
  const [name = '', offset = '', gtids = ''] = taken.info.trim().split(/\t+/)
  const stamp = name === '' ? undefined : await readStamp(endpoint, flavor, name, signal)
  const history = await chooseHistory(source, known, signal)
  const place = { file: name === '' ? 0 : fileNumber(name), offset: Number(offset), stamp }
  const position = { history, at: name === '' ? beginning : formatPlace(place) }
  await using session = await Session.open(endpoint, { signal })
  const row = await session.one('SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED)', {
    signal,
  })
  const tables = await session.one(`SELECT COUNT(*) ${fromUserTables}`, { signal })
  return {
    engine: 'mysql',
    flavor: flavor.family,
    version: flavor.version,
    form: 'physical',
    first: position,
    consistent: position,
    startedUs,
    // A little later than the moment itself, which the program does not tell so exactly.
    consistentUs: BigInt(row?.[0] ?? startedUs),
    sizeBytes: taken.sizeBytes,
    details: {
      layout: physicalLayout,
      'native-foreign-keys': await readForeignKeys(source, signal),
      gtids: gtids.replaceAll(/\s/g, ''),
      'binlog-file': name,
      'binlog-position': offset,
      // For a proof, to tell that nothing came back from that there was nothing.
      tables: tables?.[0] ?? '',
    },
  }
}
