import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import mysql from 'mysql2/promise'
import { formatTimeUs } from '#base/time'
import { freePort, handOver, isReachable, runUnprivileged, ServerChild } from './child.ts'
import type { DemoEngine, DemoServer } from './server.ts'

const home = path.resolve(import.meta.dirname, '../../..')
const fetchName = 'mariadb10'

/** MariaDB's programs, and the options by which they find their own files. */
type Programs = {
  readonly server: string
  readonly install: string
  readonly places: readonly string[]
}

/** The MariaDB that is installed, or was fetched before; undefined when there is none. */
export function findMariadb(): DemoEngine | undefined {
  const programs = installed() ?? fetched()
  return programs && createEngine(programs)
}

/** Whether this machine can fetch one: its package manager knows Debian's packages. */
export function canFetchMariadb(): boolean {
  return (
    inPath('apt-get') !== undefined && existsSync('/usr/share/keyrings/debian-archive-keyring.gpg')
  )
}

/** Fetches MariaDB from Debian's packages, without root and without installing; undefined when that fails. */
export async function fetchMariadb(signal: AbortSignal): Promise<DemoEngine | undefined> {
  const script = path.join(home, 'tools/services/fetch.sh')
  const child = spawn(script, [servicesFolder(), fetchName], { stdio: 'ignore', signal })
  const code = await new Promise<number | null>((resolve) => {
    child.once('error', () => resolve(null)).once('exit', resolve)
  })
  signal.throwIfAborted()
  return code === 0 ? findMariadb() : undefined
}

function installed(): Programs | undefined {
  const server = inPath('mariadbd')
  const install = inPath('mariadb-install-db')
  return server && install ? { server, install, places: [] } : undefined
}

function fetched(): Programs | undefined {
  const folder = path.join(servicesFolder(), fetchName)
  if (!existsSync(path.join(folder, '.done'))) return undefined
  const usr = path.join(folder, 'root/usr')
  const server = path.join(folder, 'bin/mariadbd')
  const places = [`--basedir=${usr}`, `--plugin-dir=${usr}/lib/mysql/plugin`]
  if (!isReachable(server)) return undefined
  return {
    server,
    install: path.join(folder, 'bin/mariadb-install-db'),
    places: [...places, `--lc-messages-dir=${usr}/share/mysql`],
  }
}

/** Where fetched servers are: in the checkout, or outside of it when only root may enter there. */
function servicesFolder(): string {
  const given = process.env['REDOUBT_SERVICES']
  if (given) return given
  const reachable = isReachable(path.join(home, 'redoubt'))
  return reachable ? path.join(home, '.services') : '/var/tmp/redoubt-services'
}

function inPath(program: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin']
  return folders.map((folder) => path.join(folder, program)).find((file) => isReachable(file))
}

function createEngine(programs: Programs): DemoEngine {
  return {
    name: 'MariaDB',
    // MariaDB stamps commits with whole seconds: the last moment surely before the mistake is the second before.
    momentBefore: (mistakeUs) => {
      const second = mistakeUs / 1_000_000n
      const at = formatTimeUs((second - 1n) * 1_000_000n).replace('.000000', '')
      return { at, boundMs: Number(second * 1000n) }
    },
    start: (folder, signal) => startServer(programs, folder, { shop: true, signal }),
    prepareTarget: async (folder, signal) => {
      const server = await startServer(programs, folder, { shop: false, signal })
      const all = new URL(server.url)
      all.pathname = '/'
      return {
        args: ['--to', all.href],
        shopUrl: () => server.url,
        [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
      }
    },
  }
}

async function startServer(
  { server, install, places }: Programs,
  folder: string,
  options: { readonly shop: boolean; readonly signal: AbortSignal },
): Promise<DemoServer> {
  mkdirSync(folder, { recursive: true })
  const dataDir = path.join(folder, 'data')
  const password = randomBytes(9).toString('base64url')
  const first = path.join(folder, 'first.sql')
  writeFileSync(first, firstStatements(password, options.shop))
  handOver(folder)
  const basedir = places.filter((place) => place.startsWith('--basedir'))
  // Forced: it would refuse a machine whose own name does not resolve.
  const auth = ['--auth-root-authentication-method=normal', '--skip-test-db', '--force']
  runUnprivileged([install, '--no-defaults', ...basedir, `--datadir=${dataDir}`, ...auth])
  const port = await freePort()
  const listen = [`--port=${port}`, '--bind-address=127.0.0.1', '--skip-name-resolve']
  const files = ['socket', 'pid-file'].map((name) => `--${name}=${path.join(folder, name)}`)
  // A server that starts removes whatever temporary tables lie in its folder for them, those of its neighbours too.
  const tmp = `--tmpdir=${folder}`
  const log = ['--log-bin=binlog', '--binlog-format=ROW', `--server-id=${port}`]
  const start = ['--no-defaults', ...places, `--datadir=${dataDir}`, `--init-file=${first}`]
  const size = '--innodb-buffer-pool-size=64M'
  const child = new ServerChild(
    [server, ...start, ...listen, ...files, tmp, ...log, size],
    `${folder}.log`,
  )
  const url = `mariadb://redoubt:${password}@127.0.0.1:${port}/shop`
  try {
    await child.untilReady(() => answers(url), options.signal)
    return {
      version: await version(url),
      url,
      dataDir,
      loseEverything: async () => {
        await child.end('SIGKILL')
        rmSync(folder, { recursive: true, force: true })
      },
      [Symbol.asyncDispose]: () => child.end('SIGTERM'),
    }
  } catch (error) {
    await child.end('SIGKILL')
    throw error
  }
}

/** Run at the first start: they stay out of the log, so that a restored server may differ in them. */
function firstStatements(password: string, shop: boolean): string {
  return [
    'set sql_log_bin = 0;',
    `create or replace user redoubt@'%' identified by '${password}';`,
    "grant all on *.* to redoubt@'%' with grant option;",
    'set sql_log_bin = 1;',
    ...(shop ? ['create database if not exists shop character set utf8mb4;'] : []),
    '',
  ].join('\n')
}

async function answers(url: string): Promise<boolean> {
  try {
    await version(url)
    return true
  } catch {
    return false // not listening yet; the caller gives up in time and shows the log
  }
}

async function version(url: string): Promise<string> {
  const { hostname: host, port, username: user, password } = new URL(url)
  const client = await mysql.createConnection({ host, port: Number(port), user, password })
  client.on('error', () => undefined)
  try {
    const [rows] = await client.query<mysql.RowDataPacket[]>('select version() as v')
    return String(rows[0]?.['v'] ?? '').split('-')[0] ?? ''
  } finally {
    client.destroy()
  }
}
