import assert from 'node:assert/strict'
import {
  appendFileSync,
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { systemTime } from '#base/time'
import { Redoubt } from '../../src/demo/redoubt.ts'
import { openPostgresEngine } from '../../src/demo/servers/postgres.ts'
import { actualBooks, compareBooks, countOf, expectedBooks } from '../../src/demo/shop/books.ts'
import { openShopDatabase } from '../../src/demo/shop/database.ts'
import { readOracle } from '../../src/demo/shop/oracle.ts'
import { Seller } from '../../src/demo/shop/seller.ts'
import { Scratch } from '../support/scratch.ts'
import { startPostgres } from '../support/servers/postgres.ts'
import { giveToServerUser } from '../support/servers/process.ts'
import { home, service } from '../support/servers/services.ts'
import { runProgram } from '../support/servers/tool.ts'

const guide = path.join(home, 'docs/guide/recover-with-stock-tools.md')
const password = 'only the password'
const segmentBytes = 16 * 1024 * 1024
const { signal } = new AbortController()

/** The guide's own script, as its reader copies it. */
function scriptOfGuide(): string {
  const script = /```sh\n([^]*?)```/.exec(readFileSync(guide, 'utf8'))?.[1]
  assert.ok(script, 'the guide holds a script')
  return script
}

async function stockPath(): Promise<string> {
  const names = ['restic', 'age@bookworm', 'zstd@bookworm']
  const folders = await Promise.all(names.map(async (name) => (await service(name)).bin))
  return [...folders, process.env['PATH']].join(':')
}

/** A vault with a base and the log of a shop, whose server is gone; returns the commits that the shop saw, and a time before which all must be in the vault. */
async function fillVault(scratch: Scratch, vault: string) {
  const env = { REDOUBT_VAULT_PASSWORD: password, REDOUBT_DATA: scratch.join('state') }
  const redoubt = new Redoubt(env, signal)
  await using server = await openPostgresEngine(scratch.path).start(scratch.join('shop'), signal)
  await redoubt.run(['vault', 'init', '--vault', vault])
  const args = ['--source', server.url, '--vault', vault, '--name', 'shop']
  await using protection = redoubt.protect(args)
  await protection.until(({ lastBase }) => lastBase !== undefined, { signal })
  const oracle = scratch.join('commits')
  await using seller = new Seller(server.url, oracle, 100)
  await seller.open()
  while (seller.committed < 150) await systemTime.sleep(50)
  const keptMs = Date.now()
  await protection.untilShipped(keptMs, { signal })
  await server.loseEverything()
  await seller.ended()
  await protection.until(({ position, vaults }) => position?.at === vaults[0]?.durable, { signal })
  return { seen: readOracle(oracle), keptMs }
}

test('a PostgreSQL comes back by the guide: restic, age, zstd and PostgreSQL alone', async () => {
  using scratch = new Scratch('stock')
  const vault = scratch.join('vault')
  const { seen, keptMs } = await fillVault(scratch, vault)
  const env = { PATH: await stockPath(), RESTIC_PASSWORD: password }
  const run = (program: string, args: readonly string[], input = '') =>
    runProgram(program, args, { env: { ...process.env, ...env }, input })

  const identity = scratch.join('identity.txt')
  const open = `age -d -o ${identity} ${vault}/identity/main.age`
  await run('script', ['-qec', open, '/dev/null'], `${password}\n`)
  const log = scratch.join('log')
  writeFileSync(scratch.join('native-log.sh'), scriptOfGuide())
  await run('bash', [scratch.join('native-log.sh'), vault, 'shop', log, identity])
  const segments = readdirSync(log).filter((name) => /^[0-9A-F]{24}$/.test(name))
  assert.ok(segments.length > 0, 'the log holds a segment')
  for (const segment of segments) truncateSync(path.join(log, segment), segmentBytes)

  const data = scratch.join('data')
  mkdirSync(data)
  const restic = ['-r', vault, '--no-cache', '--quiet']
  await run('restic', [...restic, 'restore', 'latest', '--tag', 'redoubt-base', '--target', data])
  chmodSync(data, 0o700)
  appendFileSync(path.join(data, 'postgresql.auto.conf'), `\nrestore_command = 'cp ${log}/%f %p'\n`)
  writeFileSync(path.join(data, 'recovery.signal'), '')
  giveToServerUser(log)

  await using server = await startPostgres({ version: '17', dataDir: data })
  await using database = await openShopDatabase(server.urlOf('shop'))
  const actual = actualBooks(await database.readAll())
  const count = countOf(actual)
  const lost = seen.filter((one) => one.n > count && one.returnedMs < keptMs)
  assert.deepEqual(lost, [], `${seen.length} commits were seen, ${count} came back`)
  assert.deepEqual(compareBooks(expectedBooks(count), actual), [])
})
