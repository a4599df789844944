import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import path from 'node:path'
import pg from 'pg'
import { Fault } from '#base/faults'
import { formatTimeUs, systemTime } from '#base/time'
import { freePort, handOver, isReachable, runUnprivileged, ServerChild } from './child.ts'
import type { DemoEngine, DemoServer, RestorePlace } from './server.ts'

const home = path.resolve(import.meta.dirname, '../../..')

/** The PostgreSQL that came with the dependencies, made reachable for a server without root. */
export function openPostgresEngine(scratch: string): DemoEngine {
  const bin = reachableBin(scratch)
  return {
    name: 'PostgreSQL',
    momentBefore: (mistakeUs) => ({
      at: formatTimeUs(mistakeUs),
      boundMs: Number(mistakeUs / 1000n),
    }),
    start: (folder, signal) => startServer(bin, folder, signal),
    prepareTarget: async (folder) => restorePlace(bin, folder),
  }
}

function reachableBin(scratch: string): string {
  const place = path.join(home, 'node_modules', `pg17-linux-${process.arch}`)
  if (!existsSync(place)) {
    throw new Fault('unsupported', `start PostgreSQL: no binaries for ${process.arch}`, {
      hint: 'The demo runs on Linux on x64 and arm64.',
    })
  }
  // Its libraries' links travel as a list, because a package holds no links; running it again does no harm.
  const links = spawnSync(process.execPath, ['scripts/hydrate-symlinks.js'], { cwd: place })
  if (links.status !== 0) throw new Fault('io', `prepare PostgreSQL: ${String(links.stderr)}`)
  const bin = path.join(place, 'native/bin')
  if (isReachable(path.join(bin, 'postgres'))) return bin
  // A checkout in root's home: nobody else may enter, so the server gets a copy.
  const copy = path.join(scratch, 'postgresql-programs')
  cpSync(path.join(place, 'native'), copy, { recursive: true, verbatimSymlinks: true })
  return path.join(copy, 'bin')
}

async function startServer(bin: string, folder: string, signal: AbortSignal): Promise<DemoServer> {
  mkdirSync(folder, { recursive: true })
  handOver(folder)
  const dataDir = path.join(folder, 'data')
  const init = ['-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '-k', '--no-sync']
  runUnprivileged([path.join(bin, 'initdb'), '-D', dataDir, ...init])
  const port = await freePort()
  const settings = [`port=${port}`, 'listen_addresses=127.0.0.1', 'shared_buffers=64MB']
  const flags = [...settings, `unix_socket_directories=${folder}`].flatMap((s) => ['-c', s])
  const child = new ServerChild(
    [path.join(bin, 'postgres'), '-D', dataDir, ...flags],
    `${folder}.log`,
  )
  const admin = `postgres://postgres@127.0.0.1:${port}/postgres`
  try {
    await child.untilReady(() => answers(admin), signal)
    const [version = ''] = await query(admin, 'create database shop', 'show server_version')
    return {
      version,
      url: `postgres://postgres@127.0.0.1:${port}/shop`,
      dataDir,
      loseEverything: async () => {
        const backends = backendsOf(child.pid)
        await child.end('SIGKILL')
        for (const pid of backends) await untilGone(pid)
        rmSync(folder, { recursive: true, force: true })
      },
      [Symbol.asyncDispose]: () => child.end('SIGQUIT'),
    }
  } catch (error) {
    await child.end('SIGKILL')
    throw error
  }
}

/** A backend that outlives its postmaster for a moment would write into a folder that is being removed. */
function backendsOf(postmaster: number): number[] {
  const file = `/proc/${postmaster}/task/${postmaster}/children`
  const pids = existsSync(file) ? readFileSync(file, 'utf8').split(' ').map(Number) : []
  return pids.filter((pid) => pid > 1)
}

async function untilGone(pid: number): Promise<void> {
  for (let tries = 0; existsSync(`/proc/${pid}`) && tries < 2400; tries++)
    await systemTime.sleep(25)
}

function restorePlace(bin: string, folder: string): RestorePlace {
  return {
    args: ['--to', folder, '--start', '--server-bin', bin],
    shopUrl: ({ url }) => {
      if (url === undefined) throw new Fault('missing', 'restore PostgreSQL: it was not started')
      const shop = new URL(url)
      shop.pathname = '/shop'
      shop.username ||= 'postgres'
      return shop.href
    },
    [Symbol.asyncDispose]: async () => {
      const file = path.join(folder, 'postmaster.pid')
      const pid = existsSync(file) ? Number(readFileSync(file, 'utf8').split('\n')[0]) : 0
      if (pid <= 1 || !existsSync(`/proc/${pid}`)) return
      process.kill(pid, 'SIGINT')
      await untilGone(pid)
    },
  }
}

async function answers(url: string): Promise<boolean> {
  try {
    await query(url, 'select 1')
    return true
  } catch {
    return false // not listening yet, or starting up; the caller gives up in time and shows the log
  }
}

/** Runs statements and returns the first cell of the last one. */
async function query(url: string, ...statements: readonly string[]): Promise<string[]> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => undefined)
  await client.connect()
  try {
    let cells: string[] = []
    for (const text of statements) {
      const result = await client.query<unknown[]>({ text, rowMode: 'array' })
      cells = result.rows.flat().map(String)
    }
    return cells
  } finally {
    await client.end()
  }
}
