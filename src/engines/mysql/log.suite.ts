import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { silentLog } from '#base/log'
import type { Position } from '#change'
import {
  Capture,
  forLargeRows,
  closedFile,
  type StartServer,
  until,
} from '../../../test/support/mysql-family-harness.ts'
import { mysql } from './mysql.ts'
import { parsePlace } from './position.ts'

const rotating = { 'max-binlog-size': '65536' }

/** The log of a server of either family, against the files that it wrote. */
export function logTests(start: StartServer): void {
  test('archived segments are byte for byte the files of the server, across rotation, kill -9 and large events', async () => {
    await using server = await start({
      settings: { ...rotating, ...forLargeRows, 'sync-binlog': '1' },
    })
    await using capture = await Capture.start(server.url)
    await server.query(
      'create database d; create table d.t (id int auto_increment primary key, v longblob)',
    )
    for (let i = 0; i < 60; i++)
      await server.query('insert into d.t (v) values (repeat(?, 3000))', ['x'])
    // More than one packet of the protocol, and more than two.
    await server.query(
      'insert into d.t (v) values (repeat("y", 17000000)), (repeat("z", 34000000))',
    )
    await capture.caughtUp(server)
    await server.kill9()
    await server.start()
    await server.query('insert into d.t (v) values (repeat("w", 2000))')
    await server.query('flush binary logs')
    await server.query('insert into d.t (v) values ("end")')
    await capture.caughtUp(server)
    const { names } = capture.archive
    assert.ok(names.length >= 6, names.join())
    for (const name of names) {
      const theirs = closedFile(readFileSync(join(server.dataDir, name)))
      assert.ok(capture.archive.bytes(name).equals(theirs), `${name} differs`)
    }
    const { commits } = capture.archive
    assert.equal(commits.length, 2 + 60 + 1 + 1 + 1)
    assert.deepEqual(
      commits.map((commit) => commit.at).toSorted(),
      commits.map((commit) => commit.at),
    )
  })

  test('reading goes on behind any block, and beats tell where an idle log ends', async () => {
    await using server = await start({ settings: rotating })
    let archive
    {
      await using first = await Capture.start(server.url)
      await server.query('create database d; create table d.t (a int)')
      await first.caughtUp(server)
      archive = first.archive
      await first.stop()
    }
    await server.query('insert into d.t values (1); flush binary logs; insert into d.t values (2)')
    const after = archive.durable()
    assert.ok(after)
    await using second = await Capture.start(server.url, { archive, after })
    await second.caughtUp(server)
    await until(() => second.beats > 0, 'a beat')
    for (const name of archive.names) {
      const theirs = closedFile(readFileSync(join(server.dataDir, name)))
      assert.ok(archive.bytes(name).equals(theirs), `${name} differs`)
    }
    assert.equal(archive.commits.length, 4)
  })

  test('a purged log is log-lost, a reset one source-changed', async () => {
    await using server = await start()
    await using capture = await Capture.start(server.url)
    await server.query('create database d; create table d.t (a int)')
    await capture.caughtUp(server)
    await capture.stop()
    const after = capture.archive.durable()
    assert.ok(after)
    await server.query('flush binary logs; insert into d.t values (1)')
    const [last] = (await server.query<{ Log_name: string }>('show binary logs')).slice(-1)
    // Not while the server still holds the file open for whoever read it.
    await until(async () => {
      await server.query('purge binary logs to ?', [last?.Log_name])
      return (await server.query('show binary logs')).length === 1
    }, 'the log to be purged')
    assert.equal(await refusal(server.url, after), 'log-lost')
    const old = server.scheme === 'mariadb' || server.version === '5.6'
    // Files are told apart by the second in which they were begun.
    const { stamp = 0 } = parsePlace(after.at)
    await until(async () => {
      const [row] = await server.query<{ now: number }>('select unix_timestamp() as now')
      return Number(row?.now) > stamp
    }, 'the next second')
    await server.query(old ? 'reset master' : 'reset binary logs and gtids')
    await server.query('create database e; create table e.t (a int)')
    // The same file number and offset exist again, in another file.
    assert.equal(await refusal(server.url, after), 'source-changed')
  })

  test('another server is source-changed, unless the log is known to lead there', async () => {
    await using one = await start()
    await using other = await start()
    await using capture = await Capture.start(one.url)
    await one.query('create database d')
    await capture.caughtUp(one)
    await capture.stop()
    const after = capture.archive.durable()
    assert.ok(after)
    assert.equal(await refusal(other.url, after), 'source-changed')
  })

  test('positions, GTIDs and file places are read as targets', async () => {
    assert.deepEqual(mysql.parseTarget('binlog.000012:4567'), {
      kind: 'position',
      at: '0000000012.000000004567',
    })
    assert.deepEqual(mysql.parseTarget('0-1-77'), { kind: 'commit', id: '0-1-77' })
    assert.equal(mysql.parseTarget('yesterday'), undefined)
    assert.equal(parsePlace('0000000012.000000004567.0000000a').stamp, 10)
  })
}

/** With which code reading from there ends. */
async function refusal(url: string, after: Position): Promise<string> {
  const signal = AbortSignal.timeout(600_000)
  await using engine = await mysql.open(url, { signal, log: silentLog })
  await using source = await engine.openLog({ log: silentLog, name: 'test', durability: 'async' })
  try {
    for await (const item of source.read(after, { signal })) return `a ${item.kind}`
  } catch (error) {
    return isFault(error) ? error.code : String(error)
  }
  return 'nothing'
}
