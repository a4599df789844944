import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { createLog } from '#base/log'
import { createProgress } from '#base/progress'
import { isFault } from '#base/faults'
import { restoreDatabase } from '#service/restore'
import { restoreTrees } from '#service/restore-files'
import { checkVault, type VaultCheck } from '#service/upkeep'
import { collect } from '../archive.ts'
import { describeTree } from '../file-tree.ts'
import { openVaultAt } from '#service/open'
import { type Ended, type Env, runCommand } from '../killed/command.ts'
import { shop } from '../killed/vault-world.ts'
import { hash, type Landing, type Site } from './sites.ts'

const signal = new AbortController().signal

/** How a command went: what it said when it found or refused something, else what it brought. */
export type Look =
  | { readonly kind: 'said'; readonly text: string }
  | {
      readonly kind: 'brought'
      readonly digest: string
      /** What it warned of while it went on. */
      readonly warned?: string | undefined
      /** How far a database came; what is there is a state that it once had. */
      readonly reached?: string | undefined
    }

export type Brought = Extract<Look, { readonly kind: 'brought' }>

/** What each way of looking brings from a vault that nothing is wrong with. */
export type Sound = ReadonlyMap<LookName, Brought>

export type LookName =
  | 'check'
  | 'restore of files'
  | 'restore of the database'
  | 'the log of the second source'

/** The commands, in this process or by the command line: each returns its result, or what it said instead. */
export type Commands = {
  readonly check: (site: Site) => Promise<VaultCheck | Said>
  readonly restoreFiles: (site: Site, tree: Tree, directory: string) => Promise<Said | undefined>
  readonly restoreDatabase: (site: Site, landing: Landing) => Promise<Reached | Said>
}

type Reached = { readonly reached: string; readonly warned: string }

type Tree = Site['trees'][number]

type Said = { readonly said: string }

/** What the command line calls, without starting a process for each. */
export const inProcess: Commands = {
  check: async ({ address, around }) => {
    const how = { readData: { kind: 'all' } as const, progress: createProgress('check') }
    return checkVault(address, how, around)
  },
  restoreFiles: async ({ address, around }, { at, path: subpath }, directory) => {
    const troubles: unknown[] = []
    const onTrouble = (trouble: unknown) => void troubles.push(trouble)
    await restoreTrees({ vault: address, at, subpath, directory, onTrouble }, around)
    return troubles.length > 0 ? { said: JSON.stringify(troubles) } : undefined
  },
  restoreDatabase: async ({ address, around }, { to, force }) => {
    const how = { only: [], remap: {}, parallel: 2, progress: createProgress('restore') }
    const what = { vault: address, source: shop, at: 'latest', ...how, to, start: false, force }
    const warnings: string[] = []
    const log = createLog({ level: 'warn', write: (line) => void warnings.push(line) })
    const { result } = await restoreDatabase(what, { ...around, log })
    return { reached: result.reached.at, warned: warnings.join('; ') }
  },
}

/** As a user types them. Findings and refusals have exit codes of their own. */
export const commandLine: Commands = {
  check: async (site) => {
    const ended = await run(site, ['vault', 'check', '--read-data', '--vault', site.url])
    // What was found comes with exit code 3, and a whole report.
    if (ended.code !== 0 && ended.code !== 3) return refusal(ended)
    const report = JSON.parse(ended.out) as VaultCheck
    assert.equal(report.ok, ended.code === 0)
    return report
  },
  restoreFiles: async (site, { at, path: subpath }, directory) => {
    const where = ['--at', at, '--to', directory, '--subpath', subpath]
    const ended = await run(site, ['restore', '--vault', site.url, ...where])
    return ended.code === 0 ? undefined : refusal(ended)
  },
  restoreDatabase: async (site, { to, force }) => {
    const where = ['--source', shop, '--to', to, ...(force ? ['--force'] : [])]
    const ended = await run(site, ['restore', '--vault', site.url, ...where])
    if (ended.code !== 0) return refusal(ended)
    const { result } = JSON.parse(ended.out) as { result: { reached: { at: string } } }
    return { reached: result.reached.at, warned: ended.said }
  },
}

function run({ around }: Site, args: readonly string[]): Promise<Ended> {
  return runCommand(args, around.env as Env)
}

function refusal({ code, out, said }: Ended): Said {
  if (code === undefined || code > 5 || /this is a defect/.test(said)) {
    throw new Error(`a command ended with ${code}: ${said}`)
  }
  return { said: `${out} ${said}` }
}

/** Looks at a vault in one way; what is refused with a Fault was said, anything else is a defect. */
export async function look(name: LookName, site: Site, commands: Commands): Promise<Look> {
  try {
    return await looks[name](site, commands)
  } catch (error) {
    if (!isFault(error)) throw error
    return { kind: 'said', text: `${error.code} ${error.message}` }
  }
}

const looks: Readonly<Record<LookName, (site: Site, commands: Commands) => Promise<Look>>> = {
  check: async (site, commands) => {
    const found = await commands.check(site)
    if ('said' in found) return { kind: 'said', text: found.said }
    const notes = JSON.stringify([found.repository.findings, found.log])
    return found.ok ? { kind: 'brought', digest: notes } : { kind: 'said', text: notes }
  },
  'restore of files': async (site, commands) => {
    const trees: string[] = []
    for (const tree of site.trees) {
      const directory = mkdtempSync(site.scratch.join('files-'))
      using _gone = removed(directory)
      const refused = await commands.restoreFiles(site, tree, directory)
      if (refused) return { kind: 'said', text: refused.said }
      trees.push(describeTree(directory).join('\n'))
    }
    return { kind: 'brought', digest: hash(trees.join('\n')) }
  },
  'restore of the database': async (site, commands) => {
    assert.ok(site.land, 'a database')
    using landing = site.land()
    const done = await commands.restoreDatabase(site, landing)
    if ('said' in done) return { kind: 'said', text: done.said }
    const { state, whole } = await landing.look()
    return { kind: 'brought', digest: state, ...done, ...(whole ? {} : { reached: undefined }) }
  },
  'the log of the second source': async ({ address, around, logOnly = '' }) => {
    await using vault = await openVaultAt(address, around)
    const reader = await vault.archive.openReader(logOnly, { signal })
    const first = reader.beginning()
    if (!first) return { kind: 'said', text: `${logOnly}: there is no log` }
    const parts: Buffer[] = []
    for await (const { segment, history, next } of reader.segments(first, { signal })) {
      const bytes = await collect(await reader.read(segment, { signal, history }))
      parts.push(bytes, Buffer.from(` ${segment} ${next} `))
    }
    return { kind: 'brought', digest: hash(Buffer.concat(parts)) }
  },
}

export async function lookAtSound(site: Site, commands: Commands): Promise<Sound> {
  const sound = new Map<LookName, Brought>()
  for (const name of waysOf(site)) {
    const seen = await look(name, site, commands)
    if (seen.kind === 'said') throw new Error(`${name} of the sound vault: ${seen.text}`)
    sound.set(name, seen)
  }
  return sound
}

/** The ways in which there is something to look at. */
function waysOf({ trees, land, logOnly }: Site): LookName[] {
  const ways: LookName[] = ['check']
  if (trees.length > 0) ways.push('restore of files')
  if (land) ways.push('restore of the database')
  if (logOnly !== undefined) ways.push('the log of the second source')
  return ways
}

function removed(directory: string): Disposable {
  return { [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }) }
}
