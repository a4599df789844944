import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { silentLog } from '#base/log'
import { World } from '../../../test/support/postgres-world.ts'
import { Scratch } from '../../../test/support/scratch.ts'
import { postgres } from './postgres.ts'

describe('prove', { concurrency: false }, () => {
  let world: World
  let heap = ''
  let index = ''

  before(async () => {
    world = await World.begin()
    const { server } = world
    await server.query('create database "other 🛒 db"')
    await server.query(
      // A vacuum behind the base would bring whole pages into the log, and recovery put them over the damage.
      'create table t with (autovacuum_enabled = off) as select g as a, repeat(md5(g::text), 30) as b from generate_series(1, 3000) g; create index i on t (a)',
    )
    const files = `select pg_relation_filepath('t') as heap, pg_relation_filepath('i') as index`
    const [row] = await server.query<{ heap: string; index: string }>(files)
    heap = row?.heap ?? ''
    index = row?.index ?? ''
    await world.takeBase()
    await using engine = await postgres.open(server.url, {
      signal: AbortSignal.timeout(600_000),
      log: silentLog,
    })
    assert.equal(await engine.beat({ signal: AbortSignal.timeout(600_000) }), true)
    await server.query('insert into t values (-1, null)')
    await world.caughtUp()
  })
  after(async () => world[Symbol.asyncDispose]())

  const prove = async () => {
    using scratch = new Scratch('prove')
    const directory = scratch.join('below')
    mkdirSync(directory)
    const { checks, result } = await postgres.prove(world.request({ kind: 'latest' }), directory)
    assert.deepEqual(readdirSync(directory), [], 'the folder is emptied')
    return { checks, result, failed: checks.filter((check) => !check.ok).map((one) => one.name) }
  }

  test('a sound base passes every check', async () => {
    const { checks, failed, result } = await prove()
    assert.deepEqual(failed, [], JSON.stringify(checks))
    const said = (name: string) => checks.find((check) => check.name === name)?.said ?? ''
    assert.match(said('manifest'), /as the manifest says/)
    assert.match(said('heartbeat'), /written at 20\d\d-/)
    assert.match(said('tables of other 🛒 db'), /all rows/)
    assert.match(said('indexes of postgres'), /stand up to amcheck/)
    assert.match(said('page checksums'), /right checksums/)
    assert.ok(result.last)
  })

  test('a bit that rotted in a heap page is found three ways', async () => {
    const file = path.join(world.base.path, heap)
    const before = readFileSync(file)
    const bytes = Buffer.from(before)
    bytes[8192 + 4000] = (bytes[8192 + 4000] ?? 0) ^ 4
    writeFileSync(file, bytes)
    const { failed } = await prove()
    writeFileSync(file, before)
    assert.deepEqual(failed, [
      'manifest',
      'tables of postgres',
      'indexes of postgres',
      'page checksums',
    ])
  })

  test('a page of an index that was swapped for another one is found', async () => {
    const file = path.join(world.base.path, index)
    const before = readFileSync(file)
    const bytes = Buffer.from(before)
    before.copy(bytes, 2 * 8192, 8192, 2 * 8192)
    writeFileSync(file, bytes)
    const { failed } = await prove()
    writeFileSync(file, before)
    assert.deepEqual(failed, ['manifest', 'indexes of postgres', 'page checksums'])
  })
})
