import { randomBytes } from 'node:crypto'
import mysql from 'mysql2/promise'
import pg from 'pg'
import { systemTime } from '#base/time'
import { Redoubt } from '../../src/demo/redoubt.ts'
import type { DemoEngine, DemoServer } from '../../src/demo/servers/server.ts'
import { actualBooks, compareBooks, countOf, expectedBooks } from '../../src/demo/shop/books.ts'
import { openShopDatabase } from '../../src/demo/shop/database.ts'
import { readOracle } from '../../src/demo/shop/oracle.ts'
import { Seller } from '../../src/demo/shop/seller.ts'
import { Scratch } from './scratch.ts'

/** What one trial came to; it counts only when a commit was in flight at the kill. */
export type StrictTrial = {
  readonly engine: string
  readonly killedAfterMs: number
  /** Commits that the workload saw return before the kill. */
  readonly seen: number
  /** Commits that the restored server holds. */
  readonly restored: number
  readonly lost: number
  /** Rows that are not as the restored number of commits makes them. */
  readonly differences: number
  readonly tookMs: number
}

const alwaysOnePerSecond = 100_000
const source = 'shop'

/**
 * Protects a fresh server in `strict`, loads it with commits one behind the other, kills server and archiver in the
 * same instant and throws the server's files away; then restores to the last commit and compares every row. With more
 * copies, as many vaults must have a commit before it returns.
 */
export async function strictTrial(
  engine: DemoEngine,
  killAfterMs: number,
  copies = 1,
): Promise<StrictTrial> {
  const startedMs = systemTime.monotonicMs()
  const { signal } = new AbortController()
  using scratch = new Scratch('strict')
  const state = {
    REDOUBT_VAULT_PASSWORD: randomBytes(9).toString('base64url'),
    REDOUBT_DATA: scratch.join('state'),
  }
  const redoubt = new Redoubt(state, signal)
  await using opened = new AsyncDisposableStack()
  const server = opened.use(await engine.start(scratch.join('server'), signal))
  const vaults = Array.from({ length: copies }, (_, index) => scratch.join(`vault-${index}`))
  for (const vault of vaults) await redoubt.run(['vault', 'init', '--vault', vault])
  await allowStrict(engine, server)
  const args = ['--source', server.url, '--name', source, '--durability', 'strict']
  args.push(...vaults.flatMap((vault) => ['--vault', vault]), '--copies', String(copies))
  const protection = opened.use(redoubt.protect(args))
  await protection.until(({ lastBase }) => lastBase !== undefined, { signal })
  const oracle = scratch.join('commits')
  const seller = opened.use(new Seller(server.url, oracle, alwaysOnePerSecond))
  await seller.open()
  await systemTime.sleep(killAfterMs, signal)
  // On a slow machine the first commit takes its time; a trial without one would prove nothing.
  while (readOracle(oracle).length === 0) await systemTime.sleep(10, signal)
  await Promise.all([protection.kill9(), server.loseEverything()])
  await seller.ended()
  const seen = readOracle(oracle)
  const place = opened.use(await engine.prepareTarget(scratch.join('restored'), signal))
  // Each vault alone has every commit: the last one is asked.
  const from = ['--vault', vaults.at(-1) ?? '', '--source', source]
  const said = await redoubt.run(['restore', ...from, ...place.args])
  const { result } = said as { readonly result: { readonly url?: string } }
  await using database = await openShopDatabase(place.shopUrl(result))
  const actual = actualBooks(await database.readAll())
  const restored = countOf(actual)
  return {
    engine: engine.name,
    killedAfterMs: killAfterMs,
    seen: seen.length,
    restored,
    lost: seen.filter((commit) => commit.n > restored).length,
    differences: compareBooks(expectedBooks(restored), actual).length,
    tookMs: Math.round(systemTime.monotonicMs() - startedMs),
  }
}

/** What must be set before `protect --durability strict` accepts the server. */
async function allowStrict(engine: DemoEngine, server: DemoServer): Promise<void> {
  if (engine.name === 'PostgreSQL') {
    await runPostgres(server, [
      `ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (redoubt_${source})'`,
      'SELECT pg_reload_conf()',
    ])
  } else {
    await runMariadb(server, [
      'SET GLOBAL rpl_semi_sync_master_wait_point = AFTER_SYNC',
      'SET GLOBAL rpl_semi_sync_master_timeout = 4294967295',
      'SET GLOBAL rpl_semi_sync_master_enabled = ON',
    ])
  }
}

async function runPostgres(server: DemoServer, statements: readonly string[]): Promise<void> {
  const client = new pg.Client(server.url)
  await client.connect()
  try {
    for (const statement of statements) await client.query(statement)
  } finally {
    await client.end()
  }
}

async function runMariadb(server: DemoServer, statements: readonly string[]): Promise<void> {
  const connection = await mysql.createConnection(server.url.replace(/^mariadb:/, 'mysql:'))
  try {
    for (const statement of statements) await connection.query(statement)
  } finally {
    await connection.end()
  }
}
