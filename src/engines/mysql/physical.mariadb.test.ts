import assert from 'node:assert/strict'
import { delimiter, join } from 'node:path'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { silentLog } from '#base/log'
import { createProgress } from '#base/progress'
import { DirectoryBase } from '../../../test/support/directory-base.ts'
import { makeEverything } from '../../../test/support/mysql-every-type.ts'
import { Capture, checksums, requestOf } from '../../../test/support/mysql-family-harness.ts'
import { Scratch, untilServerEnded } from '../../../test/support/scratch.ts'
import { startMariadb } from '../../../test/support/servers/mariadb.ts'
import { rootPassword } from '../../../test/support/servers/mysql-family.ts'
import { giveToServerUser } from '../../../test/support/servers/process.ts'
import { mysql } from './mysql.ts'
import { parseEndpoint } from './protocol/endpoint.ts'
import { Session } from './protocol/session.ts'

test('a physical base is prepared on restore, and the log behind it replayed', async () => {
  await using server = await startMariadb()
  process.env['PATH'] = `${server.bin}${delimiter}${process.env['PATH']}`
  await makeEverything(server)
  await using capture = await Capture.start(server.url)
  using scratch = new Scratch('physical')
  giveToServerUser(scratch.path)
  const files = new DirectoryBase(scratch.join('base'))
  const signal = AbortSignal.timeout(600_000)
  const options = { signal, progress: createProgress(''), log: silentLog, parallel: 2 }
  const facts = await capture.engine.takeBase(files, { ...options, form: 'physical' })
  assert.equal(facts.form, 'physical')
  await server.query(
    'create table types.later (a int primary key); insert into types.later values (1)',
  )
  await server.query('update types.numbers set i = 77; create user later@localhost')
  await capture.caughtUp(server)
  const base = { facts, files }
  const more = { serverBin: server.bin, signal }
  const proved = await mysql.prove(
    requestOf(base, capture.archive, '', more),
    scratch.join('proof'),
  )
  assert.deepEqual(
    proved.checks.filter((check) => !check.ok),
    [],
  )
  const to = scratch.join('data')
  const result = await mysql.restore(requestOf(base, capture.archive, to, { ...more, start: true }))
  assert.ok(result.url)
  const url = new URL(result.url)
  url.password = rootPassword
  await using session = await Session.open(parseEndpoint(url.href), { signal })
  const wanted = await checksums(server)
  for (const [name, said] of Object.entries(wanted)) {
    const [database = '', ...rest] = name.split('.')
    if (/[^a-z_]/.test(`${database}${rest.join('')}`)) continue
    const row = await session.one(`checksum table ${name}`, { signal })
    assert.equal(row?.[1], said.split(', ')[1], name)
  }
  const users = await session.texts(
    `select user from mysql.user where user like '%edoubt%' or user = 'later'`,
    { signal },
  )
  assert.deepEqual(users, [['later']])
  await session.query('shutdown', { signal })
  await untilServerEnded(join(to, 'redoubt.pid'))
  await using target = await startMariadb()
  await assert.rejects(
    mysql.restore(requestOf(base, capture.archive, target.url, more)),
    (error) => isFault(error, 'usage') && /directory with --to.* --only/.test(error.hint ?? ''),
  )
  await mysql.restore(
    requestOf(base, capture.archive, target.url, {
      ...more,
      only: ['types.numbers', 'types.history'],
    }),
  )
  assert.deepEqual(await checksums(target), {
    'types.history': wanted['types.history'],
    'types.numbers': wanted['types.numbers'],
  })
  const history =
    'select a, b, row_start, row_end from types.history for system_time all order by 1, 4'
  assert.deepEqual(await target.query(history), await server.query(history))
})
