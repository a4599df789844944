import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { silentLog } from '#base/log'
import { isFault } from '#base/faults'
import { Capture, takeBase } from '../../../test/support/mysql-family-harness.ts'
import { askMysql, startMysql } from '../../../test/support/servers/mysql.ts'
import { mysql } from './mysql.ts'
import { parseEndpoint } from './protocol/endpoint.ts'
import { Session } from './protocol/session.ts'

// Older versions have TLS 1.0 at most, which nobody should speak any more, and no certificate of their own.
const { options } = await askMysql()
if (options.has('tls-version')) tlsTests()
else noTlsTests()

function noTlsTests(): void {
  test('TLS is refused where it is asked for, and left out where it is not (this server has none)', async () => {
    await using server = await startMysql()
    const signal = AbortSignal.timeout(600_000)
    const required = await mysql
      .open(`${server.url}?ssl-mode=required`, { signal, log: silentLog })
      .catch((error: unknown) => error)
    assert.ok(isFault(required, 'refused'), String(required))
    await using engine = await mysql.open(`${server.url}?ssl-mode=preferred`, {
      signal,
      log: silentLog,
    })
    assert.equal(engine.facts.flavor, 'mysql')
  })
}

function tlsTests(): void {
  test('base and log pass through TLS, and certificates are verified when that is asked for', async () => {
    await using server = await startMysql()
    const signal = AbortSignal.timeout(600_000)
    const url = `${server.url}?ssl-mode=required`
    await using session = await Session.open(parseEndpoint(url), { signal })
    const [cipher] = await session.texts(`show session status like 'Ssl_cipher'`, { signal })
    assert.notEqual(cipher?.[1], '')
    await using capture = await Capture.start(url)
    await server.query(
      `create database d; create table d.t (id int primary key, v longtext); insert into d.t values (1, repeat('x', 3000000))`,
    )
    using base = await takeBase(capture.engine)
    assert.equal(base.facts.details['rows'], '1')
    await capture.caughtUp(server)
    const unverified = await mysql
      .open(`${server.url}?ssl-mode=verify-ca`, { signal, log: silentLog })
      .catch((error: unknown) => error)
    assert.ok(isFault(unverified, 'denied'), String(unverified))
    const ca = encodeURIComponent(join(server.dataDir, 'ca.pem'))
    await using verified = await mysql.open(`${server.url}?ssl-mode=verify-ca&ssl-ca=${ca}`, {
      signal,
      log: silentLog,
    })
    assert.equal(verified.facts.flavor, 'mysql')
  })
}

test('wrong credentials, a closed port and an unknown host each say what they are', async () => {
  await using server = await startMysql()
  const signal = AbortSignal.timeout(600_000)
  const fail = (url: string) =>
    mysql.open(url, { signal, log: silentLog }).then(
      () => 'opened',
      (error: unknown) => (isFault(error) ? `${error.code}: ${error.message}` : String(error)),
    )
  const denied = await fail(server.urlOf('', 'root', 'not-the-secret'))
  assert.match(denied, /^denied/)
  assert.doesNotMatch(denied, /not-the-secret/)
  assert.match(await fail(server.url.replace(`:${server.port}/`, ':1/')), /^unreachable/)
  assert.match(await fail('mysql://root@no-such-host.invalid/'), /^unreachable/)
})
