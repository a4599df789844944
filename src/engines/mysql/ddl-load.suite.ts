import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { createLog, silentLog } from '#base/log'
import { createProgress } from '#base/progress'
import { DirectoryBase } from '../../../test/support/directory-base.ts'
import { type StartServer, takeBase } from '../../../test/support/mysql-family-harness.ts'
import { Scratch } from '../../../test/support/scratch.ts'
import type { FamilyServer } from '../../../test/support/servers/mysql-family.ts'
import { mysql } from './mysql.ts'

const rounds = Number(process.env['REDOUBT_TEST_ROUNDS'] ?? 4)
const alterers = 3
const baseMaxMs = 600_000

const rows = Array.from({ length: 3000 }, () => `('${'x'.repeat(150)}')`).join(',')

/** Bases of a server whose tables are altered; `always` where the server can keep schema changes away. */
export function ddlLoadTests(start: StartServer, always: boolean): void {
  const ends = always ? 'are taken' : 'are taken, or refused with the reason,'
  test(`bases of small tables ${ends} under a load of ALTER and writes without a pause`, async () => {
    await using server = await start()
    await server.query('create database d')
    for (let n = 0; n < alterers; n++) {
      await server.query(`create table d.t${n} (id int primary key auto_increment, v varchar(200))`)
      await server.query(`insert into d.t${n} (v) values ${rows}`)
    }
    const stop = new AbortController()
    const load = [
      ...Array.from({ length: alterers }, (_, n) =>
        repeat(server, stop.signal, (i) =>
          i % 2 === 0
            ? `alter table d.t${n} add column c int default ${i}, algorithm=copy`
            : `alter table d.t${n} drop column c, algorithm=copy`,
        ),
      ),
      repeat(server, stop.signal, (i) => `insert into d.t${i % alterers} (v) values ('y')`),
    ]
    try {
      for (let round = 0; round < rounds; round++) {
        const beganMs = performance.now()
        const done = await tryBase(server)
        if (always) assert.equal(done, 'taken')
        else assert.ok(done === 'taken' || isFault(done, 'conflict', 'locked'), String(done))
        assert.ok(performance.now() - beganMs < baseMaxMs, 'a base takes its time')
      }
    } finally {
      stop.abort()
      await Promise.all(load)
    }
    assert.equal(await tryBase(server), 'taken', 'with the load gone')
  })
}

/** A table that is emptied and filled without a pause, in a database that is too large to be kept as it is. */
export function stagingTests(start: StartServer): void {
  test('bases of a large database are taken while one of its tables is emptied over and over', async () => {
    await using server = await start()
    const many = Array.from({ length: 300 }, (_, n) => `create table t${n} (id int primary key)`)
    await server.query(
      `create database d; use d; create table z_staging (v text); ${many.join(';')}`,
    )
    const stop = new AbortController()
    const load = repeat(server, stop.signal, (i) =>
      i % 3 === 0 ? 'truncate d.z_staging' : `insert into d.z_staging values ('${i}')`,
    )
    try {
      for (let round = 0; round < 2; round++) assert.equal(await tryBase(server), 'taken')
    } finally {
      stop.abort()
      await load
    }
  })
}

/** Where a base waits for a lock of its own, not for the table. */
export function lockedTableTests(start: StartServer): void {
  test('a table that somebody keeps locked holds a base up, not everybody else', async () => {
    using scratch = new Scratch('locked-table')
    await using server = await start()
    await server.query('create database d; create table d.t (id int primary key)')
    await using holder = await server.connect('d')
    await holder.query('lock tables t write')
    const signal = AbortSignal.timeout(baseMaxMs)
    const given = Promise.withResolvers<void>()
    const log = createLog({ write: (line) => /lock/.test(line) && given.resolve() })
    await using engine = await mysql.open(server.url, { signal, log })
    const files = new DirectoryBase(scratch.path)
    const progress = createProgress('base')
    const base = engine.takeBase(files, { signal, log, progress, parallel: 1 })
    await Promise.race([given.promise, base])
    // Between its attempts it holds nothing that others need.
    await server.query('create table d.other (id int primary key)')
    await holder.query('unlock tables')
    const { details } = await base
    assert.equal(details['tables'], '2')
  })
}

/** How a base ended: with the reason, when it was refused. */
async function tryBase(server: FamilyServer): Promise<unknown> {
  const signal = AbortSignal.timeout(baseMaxMs)
  await using engine = await mysql.open(server.url, { signal, log: silentLog })
  try {
    using _taken = await takeBase(engine)
    return 'taken'
  } catch (error) {
    return error
  }
}

async function repeat(
  server: FamilyServer,
  signal: AbortSignal,
  statement: (round: number) => string,
): Promise<void> {
  await using client = await server.connect()
  for (let round = 0; !signal.aborted; round++) {
    await client.query(statement(round)).catch((error: unknown) => {
      // An ALTER that gave up leaves the column as it was: the next pair finds it so.
      if (!/column|deadlock|lock wait/i.test(String(error))) throw error
    })
  }
}
