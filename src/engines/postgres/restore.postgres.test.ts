import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import { isFault } from '#base/faults'
import type { Commit, LogReader, Target } from '#change'
import { restored, World } from '../../../test/support/postgres-world.ts'
import { giveToServerUser } from '../../../test/support/servers/process.ts'
import { startPostgres } from '../../../test/support/servers/postgres.ts'
import { toAt, parseLsn } from './lsn.ts'
import { postgres } from './postgres.ts'

const rows = async (client: pg.Client, table = 't'): Promise<number[]> => {
  const { rows: found } = await client.query(`select a from ${table} order by a`)
  return found.map((row: { a: number }) => row.a)
}

describe('restore', { concurrency: false }, () => {
  let world: World
  /** What the writer saw commit: the value, its xid, and where the log ended right after. */
  const seen: { value: number; xid: string; at: string }[] = []
  let archived: readonly Commit[] = []

  before(async () => {
    world = await World.begin({ settings: { max_prepared_transactions: '5' } })
    const { server } = world
    await server.query('create table t (a int primary key)')
    await using client = await server.connect()
    for (let value = 1; value <= 300; value += 1) {
      await client.query(`insert into t values (${value})`)
      const { rows: found } = await client.query(
        `select xmin::text as xid, pg_current_wal_insert_lsn()::text as lsn from t where a = ${value}`,
      )
      seen.push({ value, xid: found[0].xid, at: toAt(parseLsn(found[0].lsn)) })
      if (value === 100) await client.query("select pg_create_restore_point('hundred')")
      if (value % 50 === 0)
        await client.query(
          'create table if not exists big as select repeat(md5(g::text), 20) from generate_series(1, 3000) g',
        )
      if (value % 70 === 0) await client.query('begin; insert into t values (-1); rollback')
      if (value === 150) await client.query('checkpoint')
      // Many files, so that a recovery is never given all of them at once.
      if (value > 200 && value % 8 === 0) await client.query('select pg_switch_wal()')
    }
    await world.caughtUp()
    archived = world.log.commits
    await world.stopArchiving()
    await server.kill9()
  })
  after(async () => world[Symbol.asyncDispose]())

  const upTo = (count: number) => Array.from({ length: count }, (_, index) => index + 1)

  test('latest brings every commit back, and tells the last one', async () => {
    await restored(world.request({ kind: 'latest' }), async (client, result) => {
      assert.deepEqual(await rows(client), upTo(300))
      assert.equal(result.last?.id, archived.at(-1)?.id)
      const { rows: made } = await client.query('insert into t values (1000) returning a')
      assert.equal(made.length, 1)
      const { rows: settings } = await client.query('show restore_command')
      assert.equal(settings[0].restore_command.includes('wal-fetch'), true)
    })
  })

  test('a time gives exactly the commits before the first one stamped later', async () => {
    for (const count of [37, 123, 211]) {
      const xid = seen[count - 1]?.xid
      const commit = archived.find((one) => one.id === xid)
      assert.ok(commit)
      const target: Target = { kind: 'time', timeUs: commit.timeUs }
      await restored(world.request(target), async (client, result) => {
        assert.deepEqual(await rows(client), upTo(count))
        assert.equal(result.last?.id, xid)
      })
      const before: Target = { kind: 'time', timeUs: commit.timeUs - 1n }
      await restored(world.request(before), async (client) => {
        assert.deepEqual(await rows(client), upTo(count - 1))
      })
    }
  })

  test('a position, a transaction and a named point are exact', async () => {
    const at = seen[59]
    await restored(world.request({ kind: 'position', at: at?.at ?? '' }), async (client) => {
      assert.deepEqual(await rows(client), upTo(60))
    })
    await restored(world.request({ kind: 'commit', id: at?.xid ?? '' }), async (client, result) => {
      assert.deepEqual(await rows(client), upTo(60))
      assert.equal(result.last?.id, at?.xid)
    })
    await restored(world.request({ kind: 'name', name: 'hundred' }), async (client) => {
      assert.deepEqual(await rows(client), upTo(100))
    })
  })

  test('a time behind the last commit gives all', async () => {
    const timeUs = (archived.at(-1)?.timeUs ?? 0n) + 3_600_000_000n
    await restored(world.request({ kind: 'time', timeUs }), async (client) => {
      assert.deepEqual(await rows(client), upTo(300))
    })
  })

  test('targets that cannot be reached are refused', async () => {
    const end = world.log.durable()?.at ?? ''
    const wrong: readonly [Target, RegExp][] = [
      [{ kind: 'position', at: toAt(BigInt(`0x${end}`) + 4096n) }, /the log ends at/],
      [{ kind: 'commit', id: '4000000' }, /not in the log/],
      [{ kind: 'name', name: 'nowhere' }, /no point in the log/],
      [{ kind: 'time', timeUs: 1n }, /consistent from/],
    ]
    for (const [target, words] of wrong) {
      await assert.rejects(
        postgres.restore(world.request(target)),
        (error) => isFault(error, 'refused') && words.test(error.message),
      )
    }
    // A slip in a name is found out before anything is laid out.
    const to = world.folder()
    await assert.rejects(postgres.restore(world.request({ kind: 'name', name: 'nowhere' }, { to })))
    assert.deepEqual(readdirSync(to), [])
  })

  test('a damaged segment in the middle is told, not taken for the end', async () => {
    const segments = world.log.names.filter((one) => !one.endsWith('.history'))
    // More of them behind it than are ever laid ready at a time.
    assert.ok(segments.length > 15, `${segments.length}`)
    const [, , , name = ''] = segments
    const damaged: LogReader = {
      segments: (first) => world.log.segments(first),
      async read(segment, options) {
        const content = await world.log.read(segment, options)
        if (segment !== name || !content) return content
        const bytes = Buffer.concat(await Array.fromAsync(content))
        bytes.fill(0xff, 300_000, 300_500)
        return (async function* () {
          yield bytes
        })()
      },
    }
    await assert.rejects(
      postgres.restore(world.request({ kind: 'latest' }, { archive: damaged })),
      (error) => isFault(error, 'corrupt'),
    )
  })

  test('without a start, the folder holds all that a recovery needs', async () => {
    const to = world.folder()
    const timeUs = archived.find((one) => one.id === seen[199]?.xid)?.timeUs ?? 0n
    const result = await postgres.restore(
      world.request({ kind: 'time', timeUs }, { to, start: false }),
    )
    assert.match(result.next.join('\n'), /pg_ctl/)
    giveToServerUser(to)
    await using server = await startPostgres({ version: world.server.version, dataDir: to })
    while ((await server.query('select pg_is_in_recovery() as r'))[0]?.['r']) await delay(20)
    const found = await server.query<{ count: string }>('select count(*) from t')
    assert.equal(Number(found[0]?.count), 200)
  })

  test('a base alone comes back as it was', async () => {
    await restored(world.request({ kind: 'latest' }, { archive: undefined }), async (client) => {
      const { rows: found } = await client.query("select to_regclass('t') as t")
      assert.equal(found[0].t, null)
    })
  })

  test('a folder that is not empty is refused, and taken with force', async () => {
    const to = world.folder()
    await postgres.restore(world.request({ kind: 'latest' }, { to, start: false }))
    await assert.rejects(
      postgres.restore(world.request({ kind: 'latest' }, { to })),
      (error) => isFault(error, 'refused') && /not empty/.test(error.message),
    )
    await restored(world.request({ kind: 'latest' }, { to, force: true }), async (client) => {
      assert.deepEqual(await rows(client), upTo(300))
    })
  })

  test('programs of another major version are refused with the way out', async () => {
    await assert.rejects(
      postgres.restore(world.request({ kind: 'latest' }, { serverBin: '/usr/bin' })),
      (error) => isFault(error, 'refused') && /--server-bin/.test(error.hint ?? ''),
    )
  })
})

test('a folder that is overwritten keeps nothing of what was in it, and no link in it is followed', async () => {
  await using world = await World.begin()
  const { server } = world
  await server.query('create table t (a int); insert into t select generate_series(1, 1000)')
  await world.caughtUp()
  const target = { kind: 'latest' } as const
  const to = world.folder()
  await restored(world.request(target, { to }), async (client) => {
    await client.query('delete from t; create table later as select 1; checkpoint')
  })
  const outside = path.join(world.folder(), 'outside')
  writeFileSync(outside, 'not ours')
  // A relation file of later, log of later, and a way out.
  const strangers = ['base/5/987654', 'pg_wal/000000010000000000000099', 'pg_replslot/a']
  for (const name of strangers) writeFileSync(path.join(to, name), 'x')
  symlinkSync(outside, path.join(to, 'base/link'))
  symlinkSync(path.dirname(outside), path.join(to, 'pg_tblspc/987'))
  await restored(world.request(target, { to, force: true }), async (client) => {
    assert.equal((await rows(client)).length, 1000)
    for (const name of [...strangers, 'base/link', 'pg_tblspc/987']) {
      assert.equal(existsSync(path.join(to, name)), false, name)
    }
    assert.equal(readFileSync(outside, 'utf8'), 'not ours')
    const { rows: found } = await client.query("select to_regclass('later') as later")
    assert.equal(found[0].later, null)
  })
})

test('a log that ends with a switch of segments, or right behind it, comes back whole', async () => {
  await using world = await World.begin()
  const { server } = world
  await server.query('create table t (a int); insert into t select generate_series(1, 10)')
  await server.query('select pg_switch_wal()')
  await world.caughtUp()
  await restored(world.request({ kind: 'latest' }), async (client) => {
    assert.equal((await rows(client)).length, 10)
  })
  await server.query('insert into t values (11)')
  await world.caughtUp()
  await restored(world.request({ kind: 'latest' }), async (client) => {
    assert.equal((await rows(client)).length, 11)
  })
})

test('tablespaces go where they are mapped to', async () => {
  await using world = await World.begin()
  const space = world.server.makeFolder('space')
  await world.server.query(`create tablespace s location '${space}'`)
  await world.server.query('create table t (a int) tablespace s; insert into t values (1)')
  await world.takeBase()
  await world.server.query('insert into t values (2)')
  await world.caughtUp()
  await assert.rejects(
    postgres.restore(world.request({ kind: 'latest' })),
    (error) => isFault(error, 'refused') && error.message.includes(space),
  )
  const elsewhere = world.server.makeFolder('elsewhere')
  const request = world.request({ kind: 'latest' }, { remap: { [space]: elsewhere } })
  await restored(request, async (client) => {
    assert.deepEqual(await rows(client), [1, 2])
    const { rows: found } = await client.query(
      "select pg_tablespace_location(oid) as at from pg_tablespace where spcname = 's'",
    )
    assert.equal(found[0].at, elsewhere)
  })
})
