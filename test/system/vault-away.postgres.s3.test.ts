import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { type ProtectNews, Redoubt } from '../../src/demo/redoubt.ts'
import { done, refused, runCommand, untilBases } from '../support/command.ts'
import { HttpFaultProxy } from '../support/http-fault-proxy.ts'
import { createProbedBucket } from '../support/probed-bucket.ts'
import { Scratch } from '../support/scratch.ts'
import { type PostgresServer, startPostgres } from '../support/servers/postgres.ts'

const { signal } = new AbortController()

type Window = {
  readonly bases: readonly { readonly name: string }[]
  readonly gaps: readonly unknown[]
  readonly windows: readonly { readonly last?: { readonly at: string } }[]
}

describe('one of two vaults is away', { concurrency: false }, () => {
  const scratch = new Scratch('away')
  const state = scratch.join('state')
  let server: PostgresServer
  let proxy: HttpFaultProxy
  let env: Record<string, string>
  let near: string
  let far: string
  before(async () => {
    server = await startPostgres()
    await server.query('create table t (n int); insert into t select generate_series(1, 1000)')
    const { ceph, bucket } = await createProbedBucket()
    proxy = await HttpFaultProxy.start({ port: ceph.port })
    near = scratch.join('near')
    far = `s3://${bucket}/vault?endpoint=${proxy.endpoint}&region=${ceph.region}&path-style=1`
    env = { ...ceph.env, REDOUBT_VAULT_PASSWORD: 'correct-horse', REDOUBT_DATA: state }
    for (const vault of [near, far])
      done(await runCommand(['vault', 'init', '--vault', vault], env))
  })
  after(async () => {
    await proxy[Symbol.asyncDispose]()
    await server[Symbol.asyncDispose]()
    scratch[Symbol.dispose]()
  })

  const protect = () => {
    const vaults = ['--vault', near, '--vault', far]
    return new Redoubt(env, signal).protect(['--source', server.url, '--name', 'shop', ...vaults])
  }
  const cut = () => {
    proxy.rule = () => ({ kind: 'reset' })
  }
  const heal = () => {
    proxy.rule = () => undefined
  }
  const insert = async (): Promise<string> => {
    await server.query('insert into t select generate_series(1, 500)')
    const [row] = await server.query(
      `select lpad(upper(to_hex((pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint)), 16, '0') as at`,
    )
    return String(row?.['at'])
  }
  const has = ({ vaults }: ProtectNews, index: number, at: string) =>
    (vaults[index]?.durable ?? '') >= at
  const windowOf = async (vault: string) => {
    const [report] = done(await runCommand(['window', '--vault', vault], env)) as Window[]
    assert.ok(report)
    return report
  }

  test('protection begins without it, and brings it up to date from the journal later', async () => {
    {
      await using protection = protect()
      await untilBases(far, 1, env)
      const at = await insert()
      await protection.until((news) => has(news, 0, at) && has(news, 1, at), { signal })
    }
    cut()
    await insert()
    await using protection = protect()
    const at = await insert()
    const alone = await protection.until((news) => has(news, 0, at), { signal })
    assert.ok(!has(alone, 1, at))
    heal()
    await protection.until((news) => has(news, 1, at), { signal })
    const { bases, gaps } = await windowOf(far)
    assert.equal(bases.length, 1)
    assert.deepEqual(gaps, [])
  })

  test('where the journal is gone too, the vault that was away has a gap, and a new base behind it', async () => {
    cut()
    {
      await using protection = protect()
      const at = await insert()
      await protection.until((news) => has(news, 0, at), { signal })
    }
    rmSync(state, { recursive: true })
    await using protection = protect()
    const at = await insert()
    await protection.until((news) => has(news, 0, at), { signal })
    heal()
    await protection.until((news) => has(news, 1, at), { signal })
    await untilBases(far, 2, env)
    const { bases, gaps } = await windowOf(far)
    assert.equal(gaps.length, 1)
    assert.equal(bases.length, 2)
    assert.deepEqual((await windowOf(near)).gaps, [])
    done(await runCommand(['vault', 'check', '--read-data', '--vault', far], env))
  })

  test('with no vault in reach it says so within seconds', async () => {
    cut()
    const args = ['protect', '--source', server.url, '--vault', far, '--name', 'shop']
    const ran = await runCommand(args, env)
    heal()
    assert.equal(refused(ran, 'no vault', 4, /open s3/).code, 'unreachable')
  })
})
