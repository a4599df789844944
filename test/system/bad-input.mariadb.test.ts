import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Redoubt } from '../../src/demo/redoubt.ts'
import { done, refused } from '../support/command.ts'
import { Guarded, untilShipped } from '../support/guarded.ts'
import { startMariadb } from '../support/servers/mariadb.ts'
import type { FamilyServer } from '../support/servers/mysql-family.ts'

const guarded = await Guarded.begin('bad-mariadb')
const { scratch, vault } = guarded
const { signal } = new AbortController()
const redoubt = new Redoubt(guarded.env, signal)
const run = (...args: readonly string[]) => guarded.run(...args)
let server: FamilyServer

before(async () => {
  server = await startMariadb()
})
after(async () => {
  await server[Symbol.asyncDispose]()
  guarded[Symbol.dispose]()
})

test('a source that cannot be protected is refused, with the way out', async () => {
  await server.query("create user plain identified by 'plain-secret'")
  const protect = (url: string) => run('protect', '--source', url, '--vault', vault)
  const wrong = await protect(server.urlOf('', 'root', 'nonsense-secret'))
  assert.equal(refused(wrong, 'wrong password', 4, /Access denied/i).code, 'denied')
  assert.doesNotMatch(wrong.out + wrong.said, /nonsense-secret/)
  const plain = await protect(server.urlOf('', 'plain', 'plain-secret'))
  assert.match(String(refused(plain, 'no right', 5, /REPLICATION/).hint), /GRANT .* TO .*plain/)
  await server.query('set global binlog_format = STATEMENT')
  const statement = refused(await protect(server.url), 'statement', 5, /statements in the log/)
  assert.match(String(statement.hint), /SET GLOBAL binlog_format = ROW/)
  await server.restart({ 'skip-log-bin': true })
  const none = refused(await protect(server.url), 'no log', 5, /writes no binary log/)
  assert.match(String(none.hint), /log_bin/)
  await server.stop()
  const down = refused(await protect(server.url), 'down', 4, /ECONNREFUSED/)
  assert.match(String(down.hint), /start the server/)
  const window = done(await run('window', '--vault', vault))
  assert.deepEqual(window, [], 'nothing of them is in the vault')
  await server[Symbol.asyncDispose]()
  server = await startMariadb()
})

const oddNames = [
  'with space',
  `quo"te's`,
  'back`tick',
  'new\nline',
  'back\\slash',
  'semi;--',
  'ümläut',
]
const quoted = (name: string) => `\`${name.replaceAll('`', '``')}\``

test('odd names survive, second archivers stay out, moments outside the window are refused', async () => {
  const started = new Date(Date.now() - 60_000).toISOString()
  for (const name of oddNames) {
    await server.query(`create database ${quoted(name)}`)
    const create = `create table ${quoted(name)}.${quoted(name)}`
    await server.query(`${create} (${quoted(name)} varchar(99) primary key)`)
  }
  const args = ['--source', server.url, '--vault', vault, '--name', 'shop']
  await using protection = redoubt.protect(args)
  await protection.until((news) => news.lastBase !== undefined, { signal })
  refused(await run('protect', ...args), 'same state', 1, /process \d+ is using it/)
  const other = ['--state', scratch.join('other-state')]
  {
    await using second = redoubt.protect([...args, ...other])
    await second.until(({ said }) => said.includes('another archiver'), { signal })
  }
  for (const name of oddNames) {
    const insert = `insert into ${quoted(name)}.${quoted(name)} values (?)`
    await server.query(insert, [name])
  }
  await untilShipped(protection)
  await protection[Symbol.asyncDispose]()

  await using target = await startMariadb()
  await target.query(
    'create database mine; create table mine.mine (n int); insert into mine.mine values (7)',
  )
  const restore = (...more: readonly string[]) =>
    run('restore', '--vault', vault, '--source', 'shop', '--to', target.url, ...more)
  const refusals: readonly (readonly [at: string, code: number, said: RegExp])[] = [
    [started, 5, /the oldest moment that can be restored is/],
    ['2999-01-01', 5, /the newest moment that can be restored is/],
    ['binlog.999999:4', 5, /no base and log reach that position/],
    ['latest', 5, /mine/],
  ]
  for (const [at, code, said] of refusals) refused(await restore('--at', at), at, code, said)
  assert.deepEqual(await databases(target), ['mine'])
  assert.deepEqual(await target.query('select n from mine.mine'), [{ n: 7 }])
  done(await restore('--force'))
  for (const name of oddNames) {
    const rows = await target.query(`select * from ${quoted(name)}.${quoted(name)}`)
    assert.deepEqual(rows, [{ [name]: name }])
  }
  assert.deepEqual(await target.query('select n from mine.mine'), [{ n: 7 }])
  // A transaction that never was: found out only when the whole log was searched.
  await using empty = await startMariadb()
  const to = ['--vault', vault, '--source', 'shop', '--to', empty.url]
  refused(await run('restore', ...to, '--at', '0-1-999999999'), 'gtid', 5, /0-1-999999999/)
  refused(await run('restore', ...to, '--at', 'yesterday'), 'name', 2, /yesterday/)
  assert.deepEqual(await databases(empty), [])
})

async function databases(of: FamilyServer): Promise<string[]> {
  const rows = await of.query<{ readonly Database: string }>('show databases')
  const system = ['information_schema', 'mysql', 'performance_schema', 'sys']
  return rows.map((row) => row.Database).filter((name) => !system.includes(name))
}
