import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createServer, connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { hasNewer, makeEverything } from '../../../test/support/mysql-every-type.ts'
import {
  Capture,
  checksums,
  closedFile,
  requestOf,
  type StartServer,
  takeBase,
  until,
} from '../../../test/support/mysql-family-harness.ts'
import type { FamilyServer } from '../../../test/support/servers/mysql-family.ts'
import { mysql } from './mysql.ts'

export type Variant = Readonly<Record<string, string>>

/** Leaves out what a server has no setting for, and says so in the test's name. */
export type Fit = (variant: Variant) => { readonly settings: Variant; readonly without: string }

const wholly: Fit = (settings) => ({ settings, without: '' })

/** By the names of the options that the server has. */
export function fitTo(options: ReadonlySet<string>): Fit {
  return (variant) => {
    const known = Object.entries(variant).filter(([name]) => options.has(name))
    const unknown = Object.keys(variant).filter((name) => !options.has(name))
    const without = unknown.length === 0 ? '' : ` (it has no ${unknown.join(' ')})`
    return { settings: Object.fromEntries(known), without }
  }
}

/** Log settings of a family, one server each: everything is captured, replayed and compared. */
export function variantTests(
  start: StartServer,
  variants: readonly Variant[],
  fit: Fit = wholly,
): void {
  for (const variant of variants) {
    const { settings, without } = fit(variant)
    const shown = Object.entries(settings).map((pair) => pair.join('='))
    test(`a log with ${shown.join(' ')}${without} is kept byte for byte and replays to the same`, async () => {
      await using server = await start({ settings })
      await using capture = await Capture.start(server.url)
      await server.query(
        'create database d; create table d.t (id int primary key, v longtext) engine=innodb',
      )
      using base = await takeBase(capture.engine)
      await makeEverything(server)
      await changes(server)
      await server.query('flush binary logs')
      await capture.caughtUp(server)
      for (const name of capture.archive.names) {
        const theirs = closedFile(readFileSync(join(server.dataDir, name)))
        assert.ok(capture.archive.bytes(name).equals(theirs), `${name} differs`)
      }
      await using target = await start()
      const result = requestOf(base, capture.archive, target.url)
      await mysql.restore(result)
      assert.deepEqual(await checksums(target), await checksums(server))
    })
  }
}

/** Everything in the base, changes of all of it in the log, from a server into another that is started the same way. */
export async function restoreBetween(start: () => Promise<FamilyServer>): Promise<void> {
  await using server = await start()
  await server.query('create database d; create table d.t (id int primary key, v longtext)')
  await makeEverything(server)
  await using capture = await Capture.start(server.url)
  using base = await takeBase(capture.engine)
  await changes(server)
  await server.query(`${tableFromRows(server)}; drop table types.empty_one`)
  await capture.caughtUp(server)
  await using target = await start()
  await mysql.restore(requestOf(base, capture.archive, target.url))
  assert.deepEqual(await checksums(target), await checksums(server))
}

/** MySQL 5.6 with GTIDs knows no table that is made of a select. */
function tableFromRows(server: FamilyServer): string {
  return server.version === '5.6'
    ? 'create table d.made (a int); insert into d.made select 1'
    : 'create table d.made as select 1 as a'
}

async function changes(server: FamilyServer): Promise<void> {
  await using client = await server.connect('types')
  await client.query(`update numbers set b = 7, f = 0.3, d = 1.5, bit9 = b'11' where id > 1`)
  await client.query(`update texts set v = 'changed', lb = repeat('q', 100000) where id < 3`)
  if (hasNewer(server)) await changeNewer(server, client)
  await client.query(
    `delete from times where id = 3; update parts set a = 12, b = 'moved' where a = 1`,
  )
  await client.query(
    `update no_key set b = 'z' where a = 1 limit 1; delete from no_key where a is null`,
  )
  await client.query(
    `begin; insert into d.t values (1, repeat('a', 500000)); savepoint s; insert into d.t values (2, 'x'); rollback to s; insert into d.t values (3, 'y'); commit`,
  )
  await client.query(
    `update child set pid = 2 where id = 10; update parent set id = 5 where id = 1; delete from parent where id = 2`,
  )
}

async function changeNewer(
  server: FamilyServer,
  client: Awaited<ReturnType<FamilyServer['connect']>>,
): Promise<void> {
  await client.query(`update papers set j = '{"a": {"b": [1, 2]}}' where id = 2`)
  if (server.scheme === 'mysql') {
    await client.query(
      `update papers set j = json_set(j, '$.a.b[0]', 'long text here') where id = 2`,
    )
  }
  await client.query(`insert into computed (a) values (10); update computed set a = 11 where a = 1`)
}

/** The source fails over to its replica behind one address. */
export function failoverTests(
  start: StartServer,
  follow: (source: FamilyServer, replica: FamilyServer) => Promise<void>,
  promote: (replica: FamilyServer) => Promise<void>,
  settings: Variant,
): void {
  test('after a failover the log goes on with that of the new primary, and a restore runs through both', async () => {
    await using one = await start({ settings })
    await using two = await start({ settings })
    await follow(one, two)
    await using address = await Address.open(one.port)
    const url = one.url.replace(`:${one.port}/`, `:${address.port}/`)
    await using capture = await Capture.start(url)
    await one.query(
      'create database d; create table d.t (id int primary key, v text) engine=innodb',
    )
    using base = await takeBase(capture.engine)
    for (let id = 0; id < 20; id++) await one.query('insert into d.t values (?, "one")', [id])
    await until(async () => (await count(two)) === 20, 'the replica')
    await capture.caughtUp(one)
    await promote(two)
    address.lead(two.port)
    await one.kill9()
    for (let id = 20; id < 40; id++) await two.query('insert into d.t values (?, "two")', [id])
    await capture.caughtUp(two)
    assert.equal(new Set(capture.archive.commits.map((commit) => commit.id)).size >= 41, true)
    await using target = await start()
    await mysql.restore(requestOf(base, capture.archive, target.url))
    assert.deepEqual(await checksums(target), await checksums(two))
    assert.equal(await count(target), 40)
  })
}

async function count(server: FamilyServer): Promise<number> {
  const [there] = await server.query<{ n: number }>(
    `select count(*) as n from information_schema.tables where table_schema = 'd' and table_name = 't'`,
  )
  if (!there?.n) return -1
  const [row] = await server.query<{ n: number }>('select count(*) as n from d.t')
  return row?.n ?? -1
}

/** One address before servers that change: a virtual IP in small. */
class Address implements AsyncDisposable {
  readonly #server = createServer((client) => this.#carry(client))
  readonly #open = new Set<Socket>()
  #target: number
  port = 0

  private constructor(target: number) {
    this.#target = target
  }

  static async open(target: number): Promise<Address> {
    const address = new Address(target)
    await new Promise<void>((resolve) => address.#server.listen(0, '127.0.0.1', resolve))
    const bound = address.#server.address()
    address.port = typeof bound === 'object' && bound ? bound.port : 0
    return address
  }

  #carry(client: Socket): void {
    const server = connect(this.#target, '127.0.0.1')
    for (const [socket, other] of [
      [client, server],
      [server, client],
    ] as const) {
      this.#open.add(socket)
      socket.on('error', () => other.destroy())
      socket.on('close', () => other.destroy())
      socket.pipe(other)
    }
  }

  lead(target: number): void {
    this.#target = target
    for (const socket of this.#open) socket.destroy()
    this.#open.clear()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close()
    this.lead(0)
  }
}
