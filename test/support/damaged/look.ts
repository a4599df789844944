import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import path from 'node:path'
import { createProgress } from '#base/progress'
import { isFault } from '#base/faults'
import { restoreDatabase } from '#service/restore'
import { restoreTrees } from '#service/restore-files'
import { checkVault, type VaultCheck } from '#service/upkeep'
import { collect } from '../archive.ts'
import { describeTree } from '../file-tree.ts'
import { type Ended, runCommand } from '../killed/command.ts'
import { metrics, shop, type VaultWorld } from '../killed/vault-world.ts'

const signal = new AbortController().signal

/** How a command went: what it said when it found or refused something, else what it brought. */
export type Look =
  | { readonly kind: 'said'; readonly text: string }
  | { readonly kind: 'brought'; readonly digest: string }

export const lookNames = [
  'check',
  'restore of files',
  'restore of the database',
  'the log of the second source',
] as const

export type LookName = (typeof lookNames)[number]

/** A vault as it is looked at. */
export type Site = { readonly world: VaultWorld; readonly url: string }

/** The commands, in this process or by the command line: each returns its result, or what it said instead. */
export type Commands = {
  readonly check: (site: Site) => Promise<VaultCheck | Said>
  readonly restoreFiles: (site: Site, at: string, directory: string) => Promise<Said | undefined>
  readonly restoreDatabase: (site: Site, to: string) => Promise<{ reached: string } | Said>
}

type Said = { readonly said: string }

/** What the command line calls, without starting a process for each. */
export const inProcess: Commands = {
  check: async ({ world, url }) => {
    const how = { readData: { kind: 'all' } as const, progress: createProgress('check') }
    return checkVault(world.address(url), how, world.around)
  },
  restoreFiles: async ({ world, url }, at, directory) => {
    const troubles: unknown[] = []
    const onTrouble = (trouble: unknown) => void troubles.push(trouble)
    const what = { vault: world.address(url), at, subpath: world.tree, directory, onTrouble }
    await restoreTrees(what, world.around)
    return troubles.length > 0 ? { said: JSON.stringify(troubles) } : undefined
  },
  restoreDatabase: async ({ world, url }, to) => {
    const how = { only: [], remap: {}, parallel: 2, progress: createProgress('restore') }
    const place = { to, start: false, force: false }
    const what = { vault: world.address(url), source: shop, at: 'latest', ...how, ...place }
    const { result } = await restoreDatabase(what, world.around)
    return { reached: result.reached.at }
  },
}

/** As a user types them. Findings and refusals have exit codes of their own. */
export const commandLine: Commands = {
  check: async ({ world, url }) => {
    const ended = await runCommand(['vault', 'check', '--read-data', '--vault', url], world.env)
    // What was found comes with exit code 3, and a whole report.
    if (ended.code !== 0 && ended.code !== 3) return refusal(ended)
    const report = JSON.parse(ended.out) as VaultCheck
    assert.equal(report.ok, ended.code === 0)
    return report
  },
  restoreFiles: async ({ world, url }, at, directory) => {
    const where = ['--at', at, '--to', directory, '--subpath', world.tree]
    const ended = await runCommand(['restore', '--vault', url, ...where], world.env)
    return ended.code === 0 ? undefined : refusal(ended)
  },
  restoreDatabase: async ({ world, url }, to) => {
    const where = ['--source', shop, '--to', to]
    const ended = await runCommand(['restore', '--vault', url, ...where], world.env)
    if (ended.code !== 0) return refusal(ended)
    const { result } = JSON.parse(ended.out) as { result: { reached: { at: string } } }
    return { reached: result.reached.at }
  },
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
    for (const at of site.world.snapshots) {
      const directory = mkdtempSync(site.world.scratch.join('files-'))
      using _gone = removed(directory)
      const refused = await commands.restoreFiles(site, at, directory)
      if (refused) return { kind: 'said', text: refused.said }
      trees.push(describeTree(directory).join('\n'))
    }
    return { kind: 'brought', digest: hash(trees.join('\n')) }
  },
  'restore of the database': async (site, commands) => {
    const directory = mkdtempSync(site.world.scratch.join('database-'))
    using _gone = removed(directory)
    const to = path.join(directory, 'data')
    const done = await commands.restoreDatabase(site, to)
    if ('said' in done) return { kind: 'said', text: done.said }
    // Which folder it is stands in the configuration, and times are those of the restore.
    const files = describeTree(to, { owners: false })
      .filter((line) => !line.includes('postgresql.auto.conf'))
      .map((line) => line.split(' | ').toSpliced(3, 1).join(' | '))
    return { kind: 'brought', digest: `${done.reached} ${hash(files.join('\n'))}` }
  },
  'the log of the second source': async ({ world, url }) => {
    await using vault = await world.openVault(url)
    const reader = await vault.archive.openReader(metrics, { signal })
    const first = reader.beginning()
    if (!first) return { kind: 'said', text: 'metrics: there is no log' }
    const parts: Buffer[] = []
    for await (const { segment, history, next } of reader.segments(first, { signal })) {
      const bytes = await collect(await reader.read(segment, { signal, history }))
      parts.push(bytes, Buffer.from(` ${segment} ${next} `))
    }
    return { kind: 'brought', digest: hash(Buffer.concat(parts)) }
  },
}

/** What each way of looking brings from a vault that nothing is wrong with. */
export async function lookAtSound(
  site: Site,
  commands: Commands,
): Promise<ReadonlyMap<LookName, string>> {
  const sound = new Map<LookName, string>()
  for (const name of lookNames) {
    const seen = await look(name, site, commands)
    if (seen.kind === 'said') throw new Error(`${name} of the sound vault: ${seen.text}`)
    sound.set(name, seen.digest)
  }
  return sound
}

function removed(directory: string): Disposable {
  return { [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }) }
}

function hash(what: string | Buffer): string {
  return createHash('sha256').update(what).digest('hex')
}
