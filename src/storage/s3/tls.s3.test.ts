import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { test } from 'node:test'
import { createServer } from 'node:tls'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Scratch } from '../../../test/support/scratch.ts'
import { sharedCeph } from '../../../test/support/servers/ceph.ts'

const run = promisify(execFile)
const script = fileURLToPath(new URL('./testdata/over-tls.ts', import.meta.url))

/** Keys and certificates are read when a process starts, so that each trial is a process. */
async function tryOut(url: string, env: Readonly<Record<string, string>>): Promise<string> {
  const { stdout } = await run(process.execPath, [script, url], { env: { ...process.env, ...env } })
  return stdout
}

test('S3 over TLS works with a private authority, and refuses an unknown one', async () => {
  using scratch = new Scratch('tls')
  const [key, cert] = [scratch.join('key.pem'), scratch.join('cert.pem')]
  const made = ['-keyout', key, '-out', cert, '-days', '2', '-subj', '/CN=localhost']
  await run('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', ...made])
  const ceph = await sharedCeph()
  const server = createServer({ key: readFileSync(key), cert: readFileSync(cert) }, (client) => {
    const gateway = connect(ceph.port, '127.0.0.1')
    for (const socket of [client, gateway]) {
      socket.on('error', () => {
        client.destroy()
        gateway.destroy()
      })
    }
    client.pipe(gateway).pipe(client)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  assert.ok(address && typeof address === 'object')
  const bucket = await ceph.createBucket()
  const url = (host: string) =>
    `s3://${bucket}/v?endpoint=https://${host}:${address.port}&region=x&part-size=5MiB`
  const trusting = { ...ceph.env, NODE_EXTRA_CA_CERTS: cert }
  assert.equal(await tryOut(url('localhost'), trusting), 'ok')
  assert.match(await tryOut(url('localhost'), ceph.env), /^unreachable stop .*SELF_SIGNED_CERT/)
  assert.match(await tryOut(url('127.0.0.1'), trusting), /^unreachable stop .*ALTNAME_INVALID/)
  const plain = url('127.0.0.1').replace('https:', 'http:')
  assert.match(await tryOut(plain, ceph.env), /^unreachable retry /)
  server.close()
})
