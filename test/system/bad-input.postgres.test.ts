import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import pg from 'pg'
import { Redoubt } from '../../src/demo/redoubt.ts'
import { done, refused } from '../support/command.ts'
import { Guarded, untilShipped } from '../support/guarded.ts'
import {
  type PostgresServer,
  postgresPassword as password,
  startPostgres,
} from '../support/servers/postgres.ts'
import { untilServerEnded } from '../support/scratch.ts'
import { SmallDisk } from '../support/small-disk.ts'

const guarded = await Guarded.begin('bad-postgres')
const { scratch, vault } = guarded
const { signal } = new AbortController()
const redoubt = new Redoubt(guarded.env, signal)
const run = (...args: readonly string[]) => guarded.run(...args)
let server: PostgresServer

before(async () => {
  server = await startPostgres()
})
after(async () => {
  await server[Symbol.asyncDispose]()
  guarded[Symbol.dispose]()
})

test('a source that cannot be protected is refused, with the way out', async () => {
  await server.query("create role plain login password 'plain-secret'")
  const protect = (url: string) => run('protect', '--source', url, '--vault', vault)
  const wrong = await protect(server.urlOf('postgres', 'postgres', 'nonsense-secret'))
  assert.equal(refused(wrong, 'wrong password', 4, /password authentication/).code, 'denied')
  assert.doesNotMatch(wrong.out + wrong.said, /nonsense-secret/)
  refused(await protect(server.urlOf('nosuch')), 'no such database', 1, /nosuch/)
  const plain = await protect(server.urlOf('postgres', 'plain', 'plain-secret'))
  assert.match(
    String(refused(plain, 'no right', 5, /may not replicate/).hint),
    /ALTER ROLE "plain" REPLICATION/,
  )
  await server.restart({ wal_level: 'minimal', max_wal_senders: '0' })
  const minimal = refused(await protect(server.url), 'minimal', 5, /wal_level is minimal/)
  assert.match(String(minimal.hint), /SET wal_level = 'replica'/)
  await server.restart({ wal_level: 'replica', max_wal_senders: '10' })
  await server.stop()
  const down = refused(await protect(server.url), 'down', 4, /ECONNREFUSED/)
  assert.match(String(down.hint), /start the server/)
  await server.start()
  const window = done(await run('window', '--vault', vault))
  assert.deepEqual(window, [], 'nothing of them is in the vault')
})

const oddNames = ['with space', `quo"te's`, 'emoji 😀', 'new\nline', 'back\\slash', 'semi;--']
const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`

test('odd names survive, second archivers stay out, moments outside the window are refused', async () => {
  const started = new Date().toISOString()
  for (const name of oddNames) {
    await server.query(`create database ${quoted(name)}`)
    const make = `create table ${quoted(name)} (${quoted(name)} text)`
    await server.query(make, undefined, name)
  }
  const args = ['--source', server.url, '--vault', vault, '--name', 'shop']
  await using protection = redoubt.protect(args)
  const { lastBase } = await protection.until((news) => news.lastBase !== undefined, { signal })
  refused(await run('protect', ...args), 'same state', 1, /process \d+ is using it/)
  const other = ['--state', scratch.join('other-state')]
  {
    await using second = redoubt.protect([...args, ...other])
    await second.until(({ said }) => said.includes('another archiver'), { signal })
    assert.equal(await second.stop(), 130, 'stopped while it waits')
  }
  for (const name of oddNames) {
    await server.query(
      `insert into ${quoted(name)} values ('${name.replaceAll("'", "''")}')`,
      undefined,
      name,
    )
  }
  await untilShipped(protection)
  await protection[Symbol.asyncDispose]()

  const target = scratch.join('restored')
  const restore = (...more: readonly string[]) =>
    run('restore', '--vault', vault, '--source', 'shop', '--to', target, ...more)
  const refusals: readonly (readonly [at: string, code: number, said: RegExp])[] = [
    [started, 5, /the oldest moment that can be restored is/],
    ['2999-01-01', 5, /the newest moment that can be restored is/],
    ['FF/FFFFFFF0', 5, /no base and log reach that position/],
    ['0/10', 5, /no base and log reach that position/],
  ]
  for (const [at, code, said] of refusals) refused(await restore('--at', at), at, code, said)
  assert.throws(() => readdirSync(target), { code: 'ENOENT' })
  refused(await restore('--at', 'yesterday'), 'no time', 2, /'yesterday' is not a time/)
  // These end only when the whole log was searched, before anything is laid out.
  for (const at of ['xid:4000000000', 'point:nosuch']) {
    const place = scratch.join(`unfound-${at}`)
    const bin = ['--start', '--server-bin', server.bin]
    const ran = await run('restore', '--vault', vault, '--to', place, '--at', at, ...bin)
    refused(ran, at, 5, new RegExp(at.slice(at.indexOf(':') + 1)))
    assert.throws(() => readdirSync(place), { code: 'ENOENT' })
  }
  refused(await restore('--start', '--server-bin', '/nonexistent'), 'no programs', 5, /nonexistent/)

  mkdirSync(target, { recursive: true })
  for (const name of readdirSync(target)) assert.fail(`${name} was written`)
  writeFileSync(`${target}/mine`, 'mine')
  refused(await restore(), 'not empty', 5, /restored/)
  assert.deepEqual(readdirSync(target), ['mine'])
  const forced = ['--force', '--start', '--server-bin', server.bin]
  const { result } = done(await restore(...forced)) as { readonly result: { readonly url: string } }
  assert.ok(lastBase)
  try {
    for (const name of oddNames) {
      const rows = await queryAt(result.url, name, `select * from ${quoted(name)}`)
      assert.deepEqual(rows, [[name]])
    }
  } finally {
    await stopAt(target)
  }
})

for (const what of ['vault', 'journal'] as const) {
  test(`a full disk of the ${what} is said; with room again it goes on and nothing is lost`, async () => {
    const small = scratch.join(`small-${what}`)
    using disk = new SmallDisk(small, 64)
    const place = what === 'vault' ? `${small}/vault` : scratch.join('vault-beside')
    const state = what === 'journal' ? `${small}/state` : scratch.join('state-beside')
    done(await run('vault', 'init', '--vault', place))
    await server.query(`create table full_${what} (n int primary key, filler text)`)
    const args = ['--source', server.url, '--vault', place, '--name', what, '--state', state]
    await using protection = redoubt.protect(args)
    await protection.until((news) => news.lastBase !== undefined, { signal })
    disk.fill()
    let rows = 0
    const insert = async () => {
      const filler = `(select string_agg(md5(random()::text), '') from generate_series(1, 2000))`
      await server.query(`insert into full_${what} values (${rows++}, ${filler})`)
    }
    for (let n = 0; n < 20; n++) await insert()
    const news = await protection.until(({ said }) => /ENOSPC|disk full/.test(said), { signal })
    assert.match(news.said, new RegExp(small))
    disk.makeRoom()
    for (let n = 0; n < 5; n++) await insert()
    await untilShipped(protection)
    await protection[Symbol.asyncDispose]()
    const [report] = done(await run('window', '--vault', place)) as { gaps: readonly unknown[] }[]
    assert.deepEqual(report?.gaps, [])
    done(await run('vault', 'check', '--read-data', '--vault', place))
    const target = scratch.join(`restored-${what}`)
    const to = ['--to', target, '--start', '--server-bin', server.bin]
    const restored = done(await run('restore', '--vault', place, ...to))
    const { result } = restored as { readonly result: { readonly url: string } }
    const sum = `select count(*)::int, md5(string_agg(filler, '' order by n)) from full_${what}`
    try {
      assert.deepEqual(
        await queryAt(result.url, 'postgres', sum),
        await queryAt(server.url, 'postgres', sum),
      )
    } finally {
      await stopAt(target)
    }
  })
}

async function queryAt(url: string, database: string, sql: string): Promise<unknown[][]> {
  const { hostname: host, port } = new URL(url)
  const client = new pg.Client({ host, port: Number(port), user: 'postgres', database, password })
  await client.connect()
  try {
    return (await client.query<unknown[]>({ text: sql, rowMode: 'array' })).rows
  } finally {
    await client.end()
  }
}

async function stopAt(directory: string): Promise<void> {
  const [pid = ''] = readFileSync(`${directory}/postmaster.pid`, 'utf8').split('\n')
  process.kill(Number(pid), 'SIGQUIT')
  await untilServerEnded(`${directory}/postmaster.pid`)
}
