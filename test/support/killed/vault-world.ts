import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { silentLog } from '#base/log'
import { createProgress } from '#base/progress'
import type { Storage } from '#storage'
import { openStorage } from '#storage/all'
import type { BackupOutcome, BackupSettings } from '#service/backup'
import { backup } from '#service/backup'
import { openVaultAt, type Surroundings, type VaultAddress } from '#service/open'
import { openForArchiving, type Vault } from '#vault'
import { parseLsn, toAt } from '../../../src/engines/postgres/lsn.ts'
import { FakeLog } from '../archive.ts'
import { addCheapPassword, initCheapVault } from '../cheap-vault.ts'
import { describeTree, noise } from '../file-tree.ts'
import { Scratch } from '../scratch.ts'
import { type PostgresServer, startPostgres } from '../servers/postgres.ts'
import { Protection } from '../../../src/demo/redoubt.ts'
import { type Env, runCommand, startCommand, succeed } from './command.ts'

export const shop = 'shop'
export const metrics = 'metrics'
const password = 'first password'
const signal = new AbortController().signal

/** The kinds of objects that a vault may hold. */
export const classes = [
  'config',
  'key',
  'data',
  'index',
  'snapshot',
  'lock',
  'mark',
  'log part',
  'log run',
  'log full',
  'lease',
  'vault record',
  'password record',
  'archiver key',
  'source record',
  'base record',
  'gap record',
  'proof record',
  'trim record',
  'bundle',
  'identity',
  'other',
] as const

export type ObjectClass = (typeof classes)[number]

const classOfFolder: Readonly<Record<string, ObjectClass>> = {
  config: 'config',
  keys: 'key',
  data: 'data',
  index: 'index',
  snapshots: 'snapshot',
  locks: 'lock',
  marks: 'mark',
  identity: 'identity',
  'catalog/vault.json': 'vault record',
  'catalog/passwords': 'password record',
  'catalog/keys': 'archiver key',
  'catalog/sources': 'source record',
  'catalog/bases': 'base record',
  'catalog/gaps': 'gap record',
  'catalog/proofs': 'proof record',
  'catalog/trims': 'trim record',
}

export function classOf(key: string): ObjectClass {
  const [first = '', second = '', third = ''] = key.split('/')
  if (first === 'log') {
    if (third === '=lease') return 'lease'
    const kind = /\.(part|run|full)\.zst\.age$/.exec(key)?.[1]
    return kind === undefined ? 'other' : (`log ${kind}` as ObjectClass)
  }
  if (key.endsWith('.bundle.json.age')) return 'bundle'
  return classOfFolder[first === 'catalog' ? `${first}/${second}` : first] ?? 'other'
}

/** How many objects of each kind a store holds. */
export async function countClasses(storage: Storage): Promise<Record<string, number>> {
  const counts: Record<string, number> = {}
  for await (const { key } of storage.list('')) {
    const name = classOf(key)
    counts[name] = (counts[name] ?? 0) + 1
  }
  return counts
}

/**
 * A vault of everything that a vault may hold, made by the command line from a PostgreSQL under load and from a file
 * tree, with what is known of its contents. One server and one vault: trials work on copies.
 */
export class VaultWorld implements AsyncDisposable {
  readonly server: PostgresServer
  readonly scratch: Scratch
  readonly env: Env
  readonly around: Surroundings
  /** The tree of files of a snapshot, by its id: where it was, and what a restore must bring back. */
  readonly trees = new Map<string, { readonly path: string; readonly lines: readonly string[] }>()
  /** Those of them that the vault holds, oldest first, and where its log ends at least. */
  snapshots: readonly string[] = []
  logUntil = ''
  #generation = 0

  constructor(server: PostgresServer, scratch: Scratch) {
    this.server = server
    this.scratch = scratch
    this.env = {
      REDOUBT_VAULT_PASSWORD: password,
      REDOUBT_VAULT_NEW_PASSWORD: 'second password',
      REDOUBT_DATA: scratch.join('state'),
      NODE_COMPILE_CACHE: path.resolve(import.meta.dirname, '../../../build/compile-cache'),
    }
    this.around = { env: this.env, log: silentLog, signal }
  }

  static async begin(): Promise<VaultWorld> {
    const server = await startPostgres({
      initdb: ['--wal-segsize=1'],
      // Trials begin again and again from an old vault: the server must still have the log that follows it.
      settings: { wal_keep_size: '8GB', max_wal_size: '1GB', max_replication_slots: '40' },
    })
    const world = new VaultWorld(server, new Scratch('killed'))
    await server.query('create table item (n bigserial primary key, said text)')
    return world
  }

  get vault(): string {
    return this.scratch.join('vault')
  }

  get tree(): string {
    return this.scratch.join('tree')
  }

  address(url = this.vault): VaultAddress {
    return { url, index: 0 }
  }

  /** Some commits, and the end of a segment. */
  async load(commits = 20): Promise<void> {
    await using client = await this.server.connect()
    for (let i = 0; i < commits; i++) {
      const said = noise(1500, i + commits).toString('base64')
      await client.query('insert into item (said) values ($1)', [said])
    }
    await client.query('select pg_switch_wal()')
  }

  /** Where the server's log ends, as the archive writes positions. */
  async logEnd(): Promise<string> {
    const [row] = await this.server.query<{ lsn: string }>('select pg_current_wal_flush_lsn() lsn')
    return toAt(parseLsn(row?.lsn ?? ''))
  }

  /** Changes some files of the tree, so that the next backup has something to store. */
  changeTree(tree = this.tree): void {
    const generation = ++this.#generation
    mkdirSync(tree, { recursive: true })
    for (const name of ['a', 'b', `c${generation % 5}`]) {
      writeFileSync(path.join(tree, name), noise(60_000, generation * 100 + name.charCodeAt(0)))
    }
  }

  /** Changes the tree and backs it up, and remembers what it was. */
  async backupTree(url = this.vault, tree = this.tree): Promise<string> {
    this.changeTree(tree)
    const done = await this.#backup({ sources: [tree], vault: this.address(url) })
    if (done.kind !== 'files' || done.snapshot === undefined) throw new Error('no snapshot')
    this.rememberTree(done.snapshot, tree)
    return done.snapshot
  }

  /** Backs up the same files under another name: nothing but the folder is new. */
  async backupRenamed(url: string, tree: string): Promise<string> {
    renameSync(path.join(tree, 'a'), path.join(tree, 'renamed'))
    const done = await this.#backup({ sources: [tree], vault: this.address(url) })
    if (done.kind !== 'files' || done.snapshot === undefined) throw new Error('no snapshot')
    this.rememberTree(done.snapshot, tree)
    return done.snapshot
  }

  rememberTree(snapshot: string, tree = this.tree): void {
    this.trees.set(snapshot, { path: tree, lines: describeTree(tree) })
  }

  async backupShop(url = this.vault): Promise<void> {
    await this.#backup({ sources: [this.server.url], vault: this.address(url), name: shop })
  }

  #backup(
    settings: Pick<BackupSettings, 'sources' | 'vault'> & Partial<BackupSettings>,
  ): Promise<BackupOutcome> {
    const progress = createProgress('backup')
    return backup({ dryRun: false, parallel: 2, progress, ...settings }, this.around)
  }

  openVault(url = this.vault): Promise<Vault> {
    return openVaultAt(this.address(url), this.around)
  }

  /** A protection by the command line. */
  protect(url = this.vault, state = this.scratch.join('journal')): Protection {
    return new Protection(startCommand(this.protectArgs(url, state), this.env) as never)
  }

  protectArgs(url: string, state: string): string[] {
    const place = ['--vault', url, '--state', state]
    return ['protect', '--source', this.server.url, '--name', shop, ...place]
  }

  /** Makes the vault: by the commands that a user types, and for what takes months otherwise, by the parts below them. */
  async build(): Promise<void> {
    const at = ['--vault', this.vault]
    await this.initVault(this.vault)
    {
      await using protection = this.protect()
      await protection.until(({ lastBase }) => lastBase !== undefined, { signal })
      for (let i = 0; i < 30; i++) await this.load(4)
      const end = await this.logEnd()
      await protection.until(({ vaults }) => (vaults[0]?.durable ?? '') >= end, { signal })
      this.logUntil = end
    }
    for (let i = 0; i < 2; i++) {
      this.changeTree()
      const said = await succeed(['backup', '--source', this.tree, ...at], this.env)
      this.rememberTree((said as { readonly snapshot: string }).snapshot)
    }
    for (let i = 0; i < 2; i++) await this.backupTree()
    const second = { name: 'second', password: 'second password' }
    await addCheapPassword(this.vault, password, second)
    const bin = ['--server-bin', this.server.bin]
    await succeed(['restore', '--prove', '--source', shop, ...bin, ...at], this.env)
    const lost = [...this.trees.keys()].slice(0, 2)
    await succeed(['vault', 'forget', ...lost, ...at], this.env)
    for (const id of lost) this.trees.delete(id)
    await succeed(['vault', 'prune', '--max-unused', '0', ...at], this.env)
    await this.#addOldRecords()
    await this.#addMetrics()
    // A backup that died: its lock stays.
    const died = await runCommand(['backup', '--source', this.tree, ...at], this.env, {
      at: 16,
      moment: 'before',
    })
    if (!died.killed) throw new Error(`the backup should have died: ${died.said}`)
    this.snapshots = [...this.trees.keys()]
  }

  /** So many gaps that their records are joined. */
  async #addOldRecords(): Promise<void> {
    await using vault = await this.openVault()
    for (let n = 0; n < 70; n++) {
      const after = { history: 'before', at: String(n).padStart(16, '0') }
      const gap = { source: 'ancient', after, before: undefined, said: `gap ${n}` }
      await vault.catalog.addGap(gap, { signal })
    }
  }

  /** A second source, archived without the vault's password, in many small parts. */
  async #addMetrics(): Promise<void> {
    await using vault = await this.openVault()
    const state = await vault.keys.enrol('metrics host', { signal, sources: [metrics] })
    await using host = await openForArchiving(await openStorage(this.vault), { state, signal })
    const choices = { signal, stateDirectory: this.scratch.join('metrics'), cutAfterMs: 1 }
    await using writer = await host.archive.openWriter(metrics, choices)
    for (const block of metricsLog.blocks(0, metricsEnd, 500)) {
      await writer.append(block, { signal })
      await writer.flush({ signal })
    }
    await writer.settle({ signal })
  }

  /** Makes an empty vault that opens with the same password. */
  initVault(url: string): Promise<void> {
    return initCheapVault(url, password)
  }

  /** The server's own bytes of a segment. */
  segment(name: string): Promise<Buffer> {
    return readFile(path.join(this.server.dataDir, 'pg_wal', name))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server[Symbol.asyncDispose]()
    this.scratch[Symbol.dispose]()
  }
}

/** The second source's log: of 440 parts, most in a segment that stays open long enough to get a run. */
export const metricsLog = new FakeLog({ segmentBytes: 170_000 })
export const metricsEnd = 220_000
