import { createHash } from 'node:crypto'
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { silentLog } from '#base/log'
import { createProgress } from '#base/progress'
import { backup } from '#service/backup'
import type { Surroundings, VaultAddress } from '#service/open'
import { openStorage } from '#storage/all'
import { Protection } from '../../../src/demo/redoubt.ts'
import { addCheapPassword, initCheapVault } from '../cheap-vault.ts'
import { describeTree, makeOddTree, noise } from '../file-tree.ts'
import { startCommand } from '../killed/command.ts'
import { metrics, shop, VaultWorld } from '../killed/vault-world.ts'
import { logEnd } from '../mysql-family-harness.ts'
import { Scratch } from '../scratch.ts'
import { startMariadb } from '../servers/mariadb.ts'
import type { FamilyServer } from '../servers/mysql-family.ts'

const signal = new AbortController().signal

/** Where a database is restored to, until the scope ends, and what is there afterwards. */
export type Landing = {
  readonly to: string
  /** It holds what a restore before it brought, or half of that. */
  readonly force: boolean
  /** What is there; and whether that is a state that the database once had, at whatever time. */
  look(): Promise<{ readonly state: string; readonly whole: boolean }>
} & Disposable

/** A vault whose objects are damaged, and what is known of it. */
export type Site = {
  readonly url: string
  readonly scratch: Scratch
  readonly around: Surroundings
  readonly address: VaultAddress
  /** Trees of files that its snapshots hold. */
  readonly trees: readonly { readonly at: string; readonly path: string }[]
  /** Its database, by the name `shop`. */
  readonly land?: (() => Landing) | undefined
  /** A source of which there is the log alone. */
  readonly logOnly?: string | undefined
}

/** A site that holds servers and folders until the scope ends. */
export type OwnSite = Site & AsyncDisposable

/** A PostgreSQL, files, and a second source: objects of every kind. */
export async function beginPostgres(): Promise<OwnSite> {
  const world = await VaultWorld.begin()
  await world.build()
  await world.server.stop()
  const { scratch, around } = world
  const url = await makeSparse(world.vault, scratch.join('damaged'))
  return {
    url,
    scratch,
    around,
    address: world.address(url),
    logOnly: metrics,
    trees: world.snapshots.map((at) => ({ at, path: world.tree })),
    land: () => landInFolder(scratch),
    [Symbol.asyncDispose]: () => world[Symbol.asyncDispose](),
  }
}

/** Files alone: some snapshots of two trees, two passwords. */
export async function beginFiles(): Promise<OwnSite> {
  const { scratch, around, password } = surroundings('damaged-files')
  const url = scratch.join('vault')
  const address = { url, index: 0 }
  await initCheapVault(url, password)
  await addCheapPassword(url, password, { name: 'second', password: 'second password' })
  const [odd, tree] = [scratch.join('odd'), scratch.join('tree')]
  await makeOddTree(odd)
  mkdirSync(path.join(tree, 'deep/er'), { recursive: true })
  const trees: { at: string; path: string }[] = []
  for (let generation = 0; generation < 8; generation++) {
    const size = 40_000 + generation * 9000
    for (const name of ['a', 'deep/b', `deep/er/c${generation}`]) {
      writeFileSync(path.join(tree, name), noise(size, generation * 31 + name.length))
    }
    // Beyond what one chunk holds.
    writeFileSync(path.join(tree, 'large'), noise(3_000_000, 7 + (generation >> 2)))
    const from = generation === 3 ? odd : tree
    const how = { dryRun: false, parallel: 2, progress: createProgress('backup') }
    const done = await backup({ sources: [from], vault: address, ...how }, around)
    if (done.kind !== 'files' || done.snapshot === undefined) throw new Error('no snapshot')
    trees.push({ at: done.snapshot, path: from })
  }
  const end = () => scratch[Symbol.dispose]()
  return { url, scratch, around, address, trees, [Symbol.asyncDispose]: async () => end() }
}

/** A MariaDB whose protection died: a base, closed binlogs, and one that is still in parts. Restored into a live server. */
export async function beginMariadb(): Promise<OwnSite> {
  const { scratch, around, password } = surroundings('damaged-mariadb')
  const vault = scratch.join('vault')
  await initCheapVault(vault, password)
  {
    await using server = await startMariadb()
    await server.query('create database shop; create table shop.t (n int primary key, said text)')
    for (let n = 0; n < 40; n++) await insert(server, n)
    const place = ['--vault', vault, '--state', scratch.join('journal')]
    const args = ['protect', '--source', server.url, '--name', shop, ...place]
    const child = startCommand(args, around.env as Readonly<Record<string, string>>)
    await using protection = new Protection(child as never)
    await protection.until(({ lastBase }) => lastBase !== undefined, { signal })
    for (let n = 40; n < 100; n++) {
      await insert(server, n)
      if (n % 12 === 0) await server.query('flush binary logs')
      // The last ones make parts of their own.
      if (n > 90) await untilStored(server, protection)
    }
    await untilStored(server, protection)
    await protection.kill9()
  }
  const url = await makeSparse(vault, scratch.join('damaged'))
  const target = await startMariadb()
  return {
    url,
    scratch,
    around,
    address: { url, index: 0 },
    trees: [],
    land: () => landInServer(target),
    [Symbol.asyncDispose]: async () => {
      await target[Symbol.asyncDispose]()
      scratch[Symbol.dispose]()
    },
  }
}

/** The same vault once more, to be damaged at the same time. */
export function copySite(site: Site, name: string): Site {
  const url = site.scratch.join(name)
  cpSync(site.url, url, { recursive: true })
  return { ...site, url, address: { url, index: 0 } }
}

function surroundings(name: string) {
  const scratch = new Scratch(name)
  const password = 'first password'
  const env = { REDOUBT_VAULT_PASSWORD: password, REDOUBT_DATA: scratch.join('state') }
  return { scratch, password, around: { env, log: silentLog, signal } }
}

type Row = { readonly n: number; readonly said: string }

function wordsOf(n: number): string {
  return noise(900, n).toString('base64')
}

function insert(server: FamilyServer, n: number): Promise<unknown> {
  return server.query('insert into shop.t values (?, ?)', [n, wordsOf(n)])
}

async function untilStored(server: FamilyServer, protection: Protection): Promise<void> {
  const end = await logEnd(server)
  await protection.until(({ vaults }) => (vaults[0]?.durable ?? '').slice(0, 23) >= end, { signal })
}

function landInFolder(scratch: Scratch): Landing {
  const directory = mkdtempSync(scratch.join('database-'))
  const to = path.join(directory, 'data')
  return {
    to,
    force: false,
    look: async () => {
      // Which folder it is stands in the configuration, and times are those of the restore.
      const files = describeTree(to, { owners: false })
        .filter((line) => !line.includes('postgresql.auto.conf'))
        .map((line) => line.split(' | ').toSpliced(3, 1).join(' | '))
      // The log is fetched when the server starts: what is laid out is the base.
      return { state: hash(files.join('\n')), whole: true }
    },
    [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }),
  }
}

function landInServer(server: FamilyServer): Landing {
  return {
    to: server.url,
    force: true,
    look: async () => {
      const rows = await server.query<Row>('select n, said from shop.t order by n')
      // Each row is known: so many commits, in their order, make one state.
      const whole = rows.every(({ n, said }, index) => n === index && said === wordsOf(n))
      return { state: `${rows.length} rows ${hash(JSON.stringify(rows))}`, whole }
    },
    [Symbol.dispose]: () => undefined,
  }
}

/** A copy of the vault as it is an hour later: what was folded is gone, but for one segment, so that each log object counts. */
async function makeSparse(vault: string, url: string): Promise<string> {
  cpSync(vault, url, { recursive: true })
  await using storage = await openStorage(url)
  const keys = (await Array.fromAsync(storage.list('log/'))).map(({ key }) => key)
  const wide = keys.filter((key) => /\.(full|run)\./.test(key))
  const [, ...folded] = wide.filter((key) => key.includes('/shop/'))
  folded.push(...wide.filter((key) => key.includes('/metrics/')))
  for (const key of keys) {
    if (/\.part\./.test(key) && folded.some((one) => covers(one, key))) rmSync(path.join(url, key))
  }
  return url
}

/** Whether an object holds the numbers of another one of its source. */
function covers(wide: string, part: string): boolean {
  const [a, b] = [sequencesOf(wide), sequencesOf(part)]
  return path.dirname(wide) === path.dirname(part) && a.first <= b.first && b.last <= a.last
}

/** The newest object of each source's log: nothing but the lease, which is written every some seconds, knows of it. */
export function newestOf(keys: readonly string[]): ReadonlySet<string> {
  const newest = new Map<string, string>()
  for (const key of keys) {
    const { last } = sequencesOf(key)
    const folder = path.dirname(key)
    if (last > sequencesOf(newest.get(folder) ?? '').last) newest.set(folder, key)
  }
  return new Set(newest.values())
}

function sequencesOf(key: string): { readonly first: number; readonly last: number } {
  const [, first = '', last = ''] = /-(\d{12})-(\d{12})\.[a-z]+\.zst\.age$/.exec(key) ?? []
  return { first: Number(first), last: Number(last) }
}

export function hash(what: string | Buffer): string {
  return createHash('sha256').update(what).digest('hex')
}
