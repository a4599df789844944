import assert from 'node:assert/strict'
import { readFileSync, statSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { type ProtectNews, Redoubt } from '../../src/demo/redoubt.ts'
import { startPostgres, type PostgresServer } from '../support/servers/postgres.ts'
import { done, refused, runCommand, untilBases } from '../support/command.ts'
import { Scratch } from '../support/scratch.ts'

const { signal } = new AbortController()
const password = 'correct-horse'

type Snapshot = {
  readonly id: string
  readonly original?: string
  readonly tags: readonly string[]
}
type Report = {
  readonly bases: readonly { readonly name: string }[]
  readonly gaps: readonly { readonly said: string }[]
}
type KeyEntry = { readonly kind: string; readonly name: string; readonly id?: string }

describe('several vaults, and hosts that only archive', { concurrency: false }, () => {
  const scratch = new Scratch('vaults')
  const env = { REDOUBT_VAULT_PASSWORD: password, REDOUBT_DATA: scratch.join('state') }
  const redoubt = new Redoubt(env, signal)
  let server: PostgresServer
  before(async () => {
    server = await startPostgres()
    await server.query('create table t (n int); insert into t select generate_series(1, 1000)')
  })
  after(async () => {
    await server[Symbol.asyncDispose]()
    scratch[Symbol.dispose]()
  })

  const vaultAt = async (name: string): Promise<string> => {
    const vault = scratch.join(name)
    done(await runCommand(['vault', 'init', '--vault', vault], env))
    return vault
  }
  const rowsOf = async (vault: string, name = vault.split('/').at(-1)): Promise<number> => {
    const to = server.makeFolder(`restored-${name}`)
    const args = ['--vault', vault, '--to', to, '--start', '--server-bin', server.bin]
    const { result } = done(await runCommand(['restore', ...args], env)) as {
      result: { url: string }
    }
    const pid = Number(readFileSync(`${to}/postmaster.pid`, 'utf8').split('\n')[0])
    const url = new URL(server.url)
    url.port = new URL(result.url).port
    const client = new pg.Client(url.href)
    try {
      await client.connect()
      const { rows } = await client.query<{ count: number }>('select count(*)::int from t')
      return rows[0]?.count ?? -1
    } finally {
      await client.end()
      process.kill(pid, 'SIGINT')
      while (isAlive(pid)) await delay(50)
    }
  }
  /** Every commit up to now is durable in all vaults. */
  const caughtUp = ({ vaults }: ProtectNews, lsn: string) =>
    vaults.every(({ durable }) => (durable ?? '') >= lsn)
  const insert = async (count: number): Promise<string> => {
    await server.query(`insert into t select generate_series(1, ${count})`)
    const [row] = await server.query(
      `select lpad(upper(to_hex((pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint)), 16, '0') as at`,
    )
    return String(row?.['at'])
  }

  test('one base is read from the source, the second vault gets a copy, and each restores alone', async () => {
    const [first, second] = [await vaultAt('first'), await vaultAt('second')]
    {
      const args = ['--source', server.url, '--vault', first, '--vault', second, '--name', 'shop']
      await using protection = redoubt.protect(args)
      await untilBases(second, 1, env)
      const at = await insert(500)
      await protection.until((news) => caughtUp(news, at), { signal })
    }
    const listed = async (vault: string) =>
      done(await runCommand(['vault', 'ls', '--vault', vault], env)) as Snapshot[]
    const [[original], [copy]] = [await listed(first), await listed(second)]
    assert.equal(copy?.original, original?.id)
    assert.deepEqual(copy?.tags, original?.tags)
    for (const vault of [first, second]) {
      const [report] = done(await runCommand(['window', '--vault', vault], env)) as Report[]
      assert.equal(report?.bases.length, 1)
      assert.deepEqual(report?.gaps, [])
      assert.equal(await rowsOf(vault), 1500)
    }
  })

  test('a host without a password archives the log, and what it wrote restores; it reads nothing', async () => {
    const vault = await vaultAt('third')
    const file = scratch.join('db7.key')
    const key = ['vault', 'key', 'enrol', 'db7', '--vault', vault, '--archiver-file', file]
    const keys = done(await runCommand([...key, '--source', 'shop'], env)) as KeyEntry[]
    const { id = '' } = keys.find(({ kind, name }) => kind === 'archiver' && name === 'db7') ?? {}
    assert.equal(statSync(file).mode & 0o777, 0o600)
    const again = await runCommand([...key, '--source', 'shop'], env)
    refused(again, 'no second file', 1, /db7\.key: there is one already/)
    const bare = { REDOUBT_DATA: scratch.join('host') }
    const archiver = ['--source', server.url, '--vault', vault, '--archiver-file', file]
    {
      const host = new Redoubt(bare, signal)
      await using protection = host.protect([...archiver, '--name', 'shop'])
      await protection.until(({ lagMs }) => lagMs !== undefined, { signal })
      // The base comes from a host with the password, while the log is captured.
      const args = ['backup', '--source', server.url, '--vault', vault, '--name', 'shop']
      done(await runCommand(args, env))
      const at = await insert(250)
      await protection.until((news) => caughtUp(news, at), { signal })
    }
    assert.equal(await rowsOf(vault), 1750)
    done(await runCommand(['vault', 'check', '--read-data', '--vault', vault], env))
    refused(await runCommand(['window', '--vault', vault], bare), 'reads nothing', 2, /no password/)
    const other = await runCommand(['protect', ...archiver, '--name', 'other'], bare)
    refused(other, 'beyond its scope', 5, /other/)
    const keeping = await runCommand(['protect', ...archiver, '--keep-last', '3'], bare)
    refused(keeping, 'no retention', 2, /no bases are taken or forgotten/)
    const strike = ['vault', 'key', 'strike', 'db7', '--vault', vault]
    refused(await runCommand(strike, env), 'its log goes', 5, /objects of the log that it wrote/)
    done(await runCommand([...strike, '--with-log'], env))
    const struck = await runCommand(['protect', ...archiver, '--name', 'shop'], bare)
    refused(struck, 'struck off', 5, new RegExp(id.slice(0, 8)))
    // What it wrote is gone, and stands in nobody's way: a host with the password goes on, with a base of its own.
    const [report] = done(await runCommand(['window', '--vault', vault], env)) as Report[]
    assert.match(report?.gaps.at(-1)?.said ?? '', /was struck off/)
    {
      const host = new Redoubt({ ...env, REDOUBT_DATA: scratch.join('another') }, signal)
      await using protection = host.protect([...archiver.slice(0, 4), '--name', 'shop'])
      await protection.until(({ lastBase }) => lastBase !== undefined, { signal })
      const at = await insert(50)
      await protection.until((news) => caughtUp(news, at), { signal })
    }
    assert.equal(await rowsOf(vault, 'again'), 1800)
  })
})

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
