import { randomBytes } from 'node:crypto'
import { systemTime } from '#base/time'
import { Redoubt } from '../../src/demo/redoubt.ts'
import type { DemoEngine } from '../../src/demo/servers/server.ts'
import { actualBooks, compareBooks, countOf, expectedBooks } from '../../src/demo/shop/books.ts'
import { openShopDatabase } from '../../src/demo/shop/database.ts'
import { readOracle } from '../../src/demo/shop/oracle.ts'
import { Seller } from '../../src/demo/shop/seller.ts'
import { Scratch } from './scratch.ts'

export type ArchiverKills = {
  readonly kills: number
  readonly seen: number
  readonly restored: number
  readonly differences: number
  /** Windows that can be restored, and gaps that were recorded: 1 and 0 when no log was lost. */
  readonly windows: number
  readonly gaps: number
  readonly checkOk: boolean
}

export type ArchiverKillOptions = {
  readonly engine: DemoEngine
  readonly kills: number
  readonly random: () => number
  /** Another vault than a folder of the trial's own. */
  readonly vault?: string | undefined
  readonly env?: Readonly<Record<string, string>> | undefined
}

const source = 'shop'

/**
 * Kills the archiver again and again under load and starts it again, each time at a random moment, also in its first
 * base; the server lives on. Then restores to the last commit: nothing may be missing, and no gap recorded.
 */
export async function archiverKills(options: ArchiverKillOptions): Promise<ArchiverKills> {
  const { engine, kills, random } = options
  const { signal } = new AbortController()
  using scratch = new Scratch('kills')
  const redoubt = new Redoubt(
    {
      REDOUBT_VAULT_PASSWORD: randomBytes(9).toString('base64url'),
      REDOUBT_DATA: scratch.join('state'),
      ...options.env,
    },
    signal,
  )
  await using opened = new AsyncDisposableStack()
  const server = opened.use(await engine.start(scratch.join('server'), signal))
  const vault = ['--vault', options.vault ?? scratch.join('vault')]
  await redoubt.run(['vault', 'init', ...vault])
  const oracle = scratch.join('commits')
  const seller = opened.use(new Seller(server.url, oracle, 60))
  await seller.open()
  const args = ['--source', server.url, ...vault, '--name', source]
  for (let kill = 0; kill < kills; kill++) {
    const protection = redoubt.protect(args)
    await protection.until(() => true, { signal })
    await systemTime.sleep(random() * 6000)
    await protection.kill9()
  }
  const protection = opened.use(redoubt.protect(args))
  await protection.until(({ lagMs, lastBase }) => lastBase !== undefined && lagMs !== undefined, {
    signal,
  })
  await seller[Symbol.asyncDispose]()
  const seen = readOracle(oracle)
  await protection.untilShipped(Date.now(), { signal })
  const [report] = (await redoubt.run(['window', ...vault])) as {
    readonly windows: readonly { readonly continuous: boolean }[]
    readonly gaps: readonly unknown[]
  }[]
  await protection[Symbol.asyncDispose]()
  const place = opened.use(await engine.prepareTarget(scratch.join('restored'), signal))
  const said = await redoubt.run(['restore', ...vault, '--source', source, ...place.args])
  const { result } = said as { readonly result: { readonly url?: string } }
  await using database = await openShopDatabase(place.shopUrl(result))
  const actual = actualBooks(await database.readAll())
  const restored = countOf(actual)
  const check = (await redoubt.run(['vault', 'check', '--read-data', ...vault])) as {
    readonly ok: boolean
  }
  return {
    kills,
    seen: seen.length,
    restored,
    differences: compareBooks(expectedBooks(restored), actual).length,
    windows: report?.windows.filter((one) => one.continuous).length ?? 0,
    gaps: report?.gaps.length ?? 0,
    checkOk: check.ok,
  }
}
