import path from 'node:path'
import { formatTimeUs, systemTime } from '#base/time'
import { withoutSecrets } from '#base/urls'
import type { Protection, Redoubt } from './redoubt.ts'
import type { DemoEngine, DemoServer } from './servers/server.ts'
import { openShopDatabase } from './shop/database.ts'
import { readOracle } from './shop/oracle.ts'
import { Seller } from './shop/seller.ts'
import { judgeLatest, judgeMoment, type Verdict } from './shop/verdict.ts'
import type { Stage } from './stage.ts'
import type { Words } from './words.ts'

/** What the story is played with. */
export type Props = {
  readonly stage: Stage
  readonly words: Words
  readonly redoubt: Redoubt
  readonly engines: readonly DemoEngine[]
  readonly folder: string
  readonly vault: string
  readonly signal: AbortSignal
  /** Whatever is started is put here, and ended with it. */
  readonly opened: AsyncDisposableStack
}

/** One database of the shop, through its good and bad days. */
type Shop = {
  readonly engine: DemoEngine
  /** What the vault calls it. */
  readonly source: string
  readonly server: DemoServer
  readonly seller: Seller
  readonly oracle: string
  protection?: Protection
  mistake?: {
    readonly at: string
    readonly boundMs: number
    readonly newest: number
    readonly madeMs: number
  }
}

/** What came back of one database. */
export type Outcome = {
  readonly name: string
  readonly source: string
  readonly moment: Verdict
  readonly latest: Verdict
  readonly rtoMs: number
  readonly urls: readonly string[]
}

const ordersPerSecond = 150
const goodDaysMs = 6000
const noticedAfterMs = 3000
/** The promise of `async`: what had returned a second before the end is there. */
const lossMaxMs = 1000

/** Plays the whole story on every engine, side by side. */
export async function play(props: Props): Promise<Outcome[]> {
  const { stage, words } = props
  stage.act(...words.opening(props.folder))
  const shops: Shop[] = []
  for (const engine of props.engines) shops.push(await openShop(engine, props))
  stage.act(...words.protecting)
  await makeVault(props)
  for (const shop of shops) await protectShop(shop, props)
  stage.act(...words.selling)
  await watch(shops, goodDaysMs, props)
  await goOn(props)
  stage.act(...words.mistake)
  for (const shop of shops) await makeMistake(shop, props)
  await watch(shops, noticedAfterMs, props)
  await goOn(props)
  stage.act(...words.crash)
  for (const shop of shops) await loseEverything(shop, props)
  await goOn(props)
  stage.act(...words.restoring)
  const outcomes: Outcome[] = []
  for (const shop of shops) outcomes.push(await recover(shop, props))
  return outcomes
}

async function goOn({ stage, words, signal }: Props): Promise<void> {
  signal.throwIfAborted()
  while (!(await stage.ask(words.goOn))) signal.throwIfAborted()
}

async function openShop(engine: DemoEngine, props: Props): Promise<Shop> {
  const { stage, words, folder, opened, signal } = props
  const source = engine.name.toLowerCase()
  const oracle = path.join(folder, `${source}.commits`)
  const server = await stage.work(words.starting(engine.name), async () => {
    const startedMs = systemTime.monotonicMs()
    const value = opened.use(await engine.start(path.join(folder, source), signal))
    return { value, said: words.started(engine.name, value.version, sinceText(startedMs)) }
  })
  const seller = opened.use(new Seller(server.url, oracle, ordersPerSecond))
  await seller.open()
  return { engine, source, server, seller, oracle }
}

async function makeVault({ stage, words, redoubt, vault }: Props): Promise<void> {
  const args = ['vault', 'init', '--vault', vault]
  stage.command(shown(args))
  await stage.work(words.makingVault, async () => {
    await redoubt.run(args)
    return { value: undefined, said: words.vaultMade }
  })
}

async function protectShop(shop: Shop, props: Props): Promise<void> {
  const { stage, words, redoubt, vault, opened, signal } = props
  const { engine, source, server } = shop
  const args = ['--source', server.url, '--vault', vault, '--name', source]
  stage.command(shown(['protect', ...args]))
  await stage.work(words.takingBase(engine.name, '...'), async (tell) => {
    const startedMs = systemTime.monotonicMs()
    const protection = opened.use(redoubt.protect(args))
    shop.protection = protection
    const news = await protection.until(
      ({ lastBase, lagMs }) => lastBase !== undefined && (lagMs ?? Infinity) < lossMaxMs,
      { signal, onNews: ({ said }) => tell(words.takingBase(engine.name, said)) },
    )
    const lag = ((news.lagMs ?? 0) / 1000).toFixed(1)
    return { value: undefined, said: words.protected(engine.name, sinceText(startedMs), lag) }
  })
}

/** Lets the shops sell for a while. */
async function watch(shops: readonly Shop[], ms: number, props: Props): Promise<void> {
  const { stage, words, signal } = props
  const counts = () =>
    shops.map(({ engine, seller }) => `${engine.name} ${seller.committed}`).join(', ')
  await stage.work(words.sold(counts()), async (tell) => {
    const untilMs = systemTime.monotonicMs() + ms
    while (systemTime.monotonicMs() < untilMs) {
      await systemTime.sleep(200, signal)
      tell(words.sold(counts()))
    }
    return { value: undefined, said: words.sold(counts()) }
  })
}

async function makeMistake(shop: Shop, { stage, words }: Props): Promise<void> {
  await using database = await openShopDatabase(shop.server.url)
  const { beforeUs, deleted, newest } = await database.deleteAllOrders()
  const moment = shop.engine.momentBefore(beforeUs)
  shop.mistake = { ...moment, newest, madeMs: Number(beforeUs / 1000n) }
  stage.command('DELETE FROM orders;')
  stage.fact(words.mistaken(shop.engine.name, deleted, formatTimeUs(beforeUs)), 'bad')
}

/** The server and its files go; the archiver, on a machine of its own in real life, ships what it saw, and ends. */
async function loseEverything(shop: Shop, props: Props): Promise<void> {
  const { stage, words, signal } = props
  const { engine, server, seller, protection, mistake } = shop
  // On a busy machine the archiver may be behind: what is to be brought back must be in the vault before all is lost.
  await protection?.untilShipped(mistake?.madeMs ?? 0, { signal })
  await server.loseEverything()
  await seller.ended()
  stage.fact(words.crashed(engine.name, readOracle(shop.oracle).length), 'bad')
  if (!protection) return
  await stage.work(words.shippingTail, async () => {
    const lostMs = Date.now()
    await protection.until(
      ({ timeMs, position, vaults }) => timeMs > lostMs && position?.at === vaults[0]?.durable,
      { signal },
    )
    await protection[Symbol.asyncDispose]()
    return { value: undefined, said: words.tailShipped(engine.name) }
  })
}

/** Restores twice and compares both. */
async function recover(shop: Shop, props: Props): Promise<Outcome> {
  const { words } = props
  const { engine, mistake, source } = shop
  if (!mistake) throw new Error('a story without its mistake')
  const seen = readOracle(shop.oracle)
  const before = await restore(shop, { at: mistake.at, what: words.beforeMistake }, props)
  const moment = await judge(shop, before, props, (rows) =>
    judgeMoment(rows, seen, mistake.boundMs),
  )
  const last = await restore(shop, { at: 'latest', what: words.latest }, props)
  const latest = await judge(shop, last, props, (rows) =>
    judgeLatest(rows, seen, { mistakeAfter: mistake.newest, lossMaxMs }),
  )
  const urls = [before.url, last.url]
  return { name: engine.name, source, moment, latest, rtoMs: last.tookMs, urls }
}

type RestoredShop = { readonly url: string; readonly what: string; readonly tookMs: number }

async function restore(
  shop: Shop,
  target: { readonly at: string; readonly what: string },
  props: Props,
): Promise<RestoredShop> {
  const { stage, words, redoubt, vault, folder, opened, signal } = props
  const { engine, source } = shop
  const name = `${source}-${target.at === 'latest' ? 'latest' : 'before'}`
  const place = opened.use(await engine.prepareTarget(path.join(folder, name), signal))
  const from = ['--vault', vault, '--source', source]
  const args = ['restore', ...from, '--at', target.at, ...place.args]
  stage.command(shown(args))
  return stage.work(words.restoringTo(engine.name, target.at), async () => {
    const startedMs = systemTime.monotonicMs()
    const said = (await redoubt.run(args)) as { readonly result: { readonly url?: string } }
    const url = place.shopUrl(said.result)
    const tookMs = systemTime.monotonicMs() - startedMs
    const value = { url, what: target.what, tookMs }
    return { value, said: words.restored(engine.name, target.what, sinceText(startedMs)) }
  })
}

async function judge(
  shop: Shop,
  restored: RestoredShop,
  { stage, words }: Props,
  verdictOf: (
    rows: Awaited<ReturnType<Awaited<ReturnType<typeof openShopDatabase>>['readAll']>>,
  ) => Verdict,
): Promise<Verdict> {
  const { name } = shop.engine
  await using database = await openShopDatabase(restored.url)
  const verdict = verdictOf(await database.readAll())
  stage.fact(words.comparing(name, restored.what))
  if (verdict.held) {
    stage.fact(words.equal(String(verdict.rows), String(verdict.transactions)), 'good')
  } else {
    stage.fact([words.different(name, restored.what), ...verdict.troubles].join('\n'), 'bad')
  }
  return verdict
}

function sinceText(startedMs: number): string {
  return ((systemTime.monotonicMs() - startedMs) / 1000).toFixed(1)
}

/** A command as a reader would type it: without the passwords of URLs. */
function shown(args: readonly string[]): string {
  const parts = ['redoubt', ...args.map(withoutSecrets)]
  return parts.map((part) => (/[\s&?*]/.test(part) ? `'${part}'` : part)).join(' ')
}
