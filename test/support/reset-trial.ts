import assert from 'node:assert/strict'
import { type ProtectNews, Redoubt } from '../../src/demo/redoubt.ts'
import type { StartServer } from './mysql-family-harness.ts'
import { Scratch } from './scratch.ts'
import type { FamilyServer } from './servers/mysql-family.ts'

type Report = {
  readonly windows: readonly {
    readonly from: { readonly history: string }
    readonly continuous: boolean
  }[]
  readonly gaps: readonly { readonly said: string }[]
}

/**
 * The binary log of a protected source is reset, while the protection runs or while it is stopped: it goes on under
 * the same name, and moments of before and after come back.
 */
export async function resetTrial(start: StartServer, how: 'running' | 'stopped'): Promise<void> {
  using scratch = new Scratch('reset-log')
  const { signal } = new AbortController()
  const env = { REDOUBT_VAULT_PASSWORD: 'reset-secret', REDOUBT_DATA: scratch.join('state') }
  const redoubt = new Redoubt(env, signal)
  await using server = await start()
  const vault = ['--vault', scratch.join('vault')]
  await redoubt.run(['vault', 'init', ...vault])
  const args = ['--source', server.url, ...vault, '--name', 'shop']
  let protection = redoubt.protect(args)
  try {
    const { lastBase: firstBase } = await protection.until((news) => isReady(news), { signal })
    await server.query('create database d; create table d.t (n int primary key) engine=innodb')
    await server.query('insert into d.t values (1), (2)')
    const before = await momentOf(server)
    await server.query('insert into d.t values (3); flush binary logs')
    await protection.until(shippedAll(), { signal })
    if (how === 'stopped') await protection[Symbol.asyncDispose]()
    await nextSecond(server)
    const old = server.scheme === 'mariadb' || server.version === '5.6'
    await server.query(old ? 'reset master' : 'reset binary logs and gtids')
    await server.query('insert into d.t values (4)')
    if (how === 'stopped') protection = redoubt.protect(args)
    const isAnew = (news: ProtectNews) => isReady(news) && news.lastBase !== firstBase
    await protection.until(isAnew, { signal })
    await server.query('insert into d.t values (5)')
    const after = await momentOf(server)
    await server.query('delete from d.t')
    await protection.until(shippedAll(), { signal })
    const [report] = (await redoubt.run(['window', ...vault])) as Report[]
    assert.equal(report?.gaps.length, 1, JSON.stringify(report))
    const [first, second] = report?.windows ?? []
    assert.ok(first?.continuous && second?.continuous, JSON.stringify(report))
    assert.equal(second.from.history.replace(/\.[0-9a-f]{8}$/, ''), first.from.history)
    assert.notEqual(second.from.history, first.from.history)
    // A base by hand finds its place in the new history too.
    await redoubt.run(['backup', ...args])
    const [later] = (await redoubt.run(['window', ...vault])) as Report[]
    assert.equal(later?.windows.length, 2, JSON.stringify(later))
    await protection[Symbol.asyncDispose]()
    await using target = await start()
    for (const [at, wanted] of [
      [before, [1, 2]],
      [after, [1, 2, 3, 4, 5]],
      ['latest', []],
    ] as const) {
      await redoubt.run(['restore', ...vault, '--to', target.url, '--at', at, '--force'])
      const rows = await target.query<{ n: number }>('select n from d.t order by n')
      assert.deepEqual(
        rows.map(({ n }) => n),
        wanted,
        `restored to ${at}`,
      )
    }
  } finally {
    await protection[Symbol.asyncDispose]()
  }
}

const isReady = ({ lastBase, lagMs }: ProtectNews) =>
  lastBase !== undefined && (lagMs ?? Number.POSITIVE_INFINITY) < 1500

/** All that was committed by now is in the vault. */
function shippedAll(): (news: ProtectNews) => boolean {
  const sinceMs = performance.now()
  return ({ lagMs = Number.POSITIVE_INFINITY, position, vaults }) =>
    performance.now() - sinceMs > lagMs + 1000 && position?.at === vaults[0]?.durable
}

/** A moment behind all commits so far and before those that follow. */
async function momentOf(server: FamilyServer): Promise<string> {
  await nextSecond(server)
  const [row] = await server.query<{ at: string }>(
    `select date_format(utc_timestamp() - interval 1 second, '%Y-%m-%dT%H:%i:%s.999999Z') as at`,
  )
  return row?.at ?? ''
}

/** Commits and files bear whole seconds. */
async function nextSecond(server: FamilyServer): Promise<void> {
  await server.query('do sleep(1.1 - mod(unix_timestamp(now(6)), 1))')
}
