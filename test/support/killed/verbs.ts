import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import path from 'node:path'
import { isFault } from '#base/faults'
import { createProgress } from '#base/progress'
import { openStorage } from '#storage/all'
import { openVaultAt } from '#service/open'
import { listSnapshots } from '#service/vault'
import { copy, forget } from '#service/upkeep'
import { openRepository } from '#vault/repository/open'
import { type Ended, ending } from './command.ts'
import type { Place } from './places.ts'
import { type Expected, verifyVault } from './verify.ts'

const signal = new AbortController().signal
const newPassword = 'third password'

/** A command that touches the store, as a trial runs it. */
export type Verb = {
  readonly name: string
  /** How many trials of it the short run makes: none of what takes long. */
  readonly shortTrials: number
  /** Gives the command something to do: once, before all trials. */
  readonly prepare?: ((place: Place) => Promise<void>) | undefined
  readonly args: (place: Place) => string[]
  /** Called when a run has ended or died. */
  readonly clean?: ((place: Place) => Promise<void>) | undefined
  /** The code of the refusal when the dead one had done all of its work. */
  readonly wasDone?: string | undefined
  /** Called when the command was run again to its end. */
  readonly after?: ((place: Place, ended: Ended) => Promise<void>) | undefined
  /** What must hold then; by default the whole of the vault. */
  readonly verify?: ((place: Place, expected: Expected) => Promise<void>) | undefined
}

/** Another vault of the place. */
const second = (place: Place): string => place.sibling('second')

const backupFiles: Verb = {
  name: 'backup of files',
  shortTrials: 2,
  prepare: async ({ world, tree }) => world.changeTree(tree),
  args: ({ tree, url }) => ['backup', '--source', tree, '--vault', url],
  after: async (place, { out }) => {
    const { snapshot } = JSON.parse(out) as { readonly snapshot: string }
    place.world.rememberTree(snapshot, place.tree)
    place.snapshots.push(snapshot)
  },
}

const backupDatabase: Verb = {
  name: 'backup of a database',
  shortTrials: 1,
  prepare: async ({ world }) => world.load(2),
  args: ({ world, url }) => {
    const source = ['--source', world.server.url, '--name', 'shop']
    return ['backup', ...source, '--vault', url]
  },
}

const forgetOld: Verb = {
  name: 'vault forget',
  shortTrials: 1,
  prepare: async (place) => {
    for (let i = 0; i < 2; i++)
      place.snapshots.push(await place.world.backupTree(place.url, place.tree))
    await place.world.backupShop(place.url)
  },
  args: ({ url }) => ['vault', 'forget', '--keep-last', '2', '--vault', url],
  after: async (place) => {
    const { snapshots: before, world } = place
    const newest = (own: boolean) =>
      before.filter((id) => (world.trees.get(id)?.path === place.tree) === own).slice(-2)
    place.snapshots = [...newest(false), ...newest(true)]
    const snapshots = await listSnapshots(place.world.address(place.url), place.world.around)
    assert.equal(snapshots.length, 6, 'two snapshots stay of each tree, and two bases')
  },
  // The bases that stay are newer than the log, which nobody has gone on with here.
  verify: ({ world }, expected) => verifyVault(world, { ...expected, logUntil: undefined }),
}

const prune: Verb = {
  name: 'vault prune',
  shortTrials: 2,
  prepare: async (place) => {
    const { world, url, tree } = place
    // Two that go: one whose files nobody else has, and one of whose index file another one needs a pack still.
    const first = await world.backupTree(url, tree)
    const second = await world.backupTree(url, tree)
    place.snapshots.push(await world.backupRenamed(url, tree))
    const none = { hosts: [], tags: [], paths: [] }
    const how = { rules: {}, dryRun: false, groupBy: '', ...none }
    const [oldest = ''] = place.snapshots.splice(0, 1)
    const ids = [oldest, first, second]
    await forget({ vault: world.address(url), ids, ...how }, world.around)
  },
  args: ({ url }) => {
    const atOnce = ['--max-unused', '0', '--grace', '0']
    return ['vault', 'prune', ...atOnce, '--vault', url]
  },
}

const copyNew: Verb = {
  name: 'vault copy',
  shortTrials: 1,
  prepare: async (place) => {
    const { world, url } = place
    await world.initVault(second(place))
    const vaults = { from: world.address(url), to: world.address(second(place)) }
    const how = { ids: [], dryRun: false, progress: createProgress('copy') }
    await copy({ ...vaults, ...how }, world.around)
    place.snapshots.push(await world.backupTree(url, place.tree))
    await world.backupShop(url)
  },
  args: (place) => ['vault', 'copy', '--vault', place.url, '--to', second(place)],
  verify: verifyBoth,
}

const copyEverything: Verb = {
  name: 'vault copy of everything',
  shortTrials: 0,
  prepare: (place) => place.world.initVault(second(place)),
  args: (place) => ['vault', 'copy', '--vault', place.url, '--to', second(place)],
  verify: verifyBoth,
}

async function verifyBoth(place: Place, expected: Expected): Promise<void> {
  await verifyVault(place.world, { ...expected, url: second(place) })
  await verifyVault(place.world, expected)
}

const init: Verb = {
  name: 'vault init',
  shortTrials: 2,
  args: (place) => ['vault', 'init', '--vault', second(place)],
  wasDone: 'exists',
  verify: async (place) => {
    const how = { url: second(place), readData: true, sample: 0 }
    await verifyVault(place.world, { ...how, snapshots: [] })
    const snapshot = await place.world.backupTree(how.url, place.tree)
    await verifyVault(place.world, { ...how, snapshots: [snapshot] })
  },
}

async function hasKey({ world, url }: Place, name: string): Promise<boolean> {
  await using vault = await world.openVault(url)
  return (await vault.keys.list({ signal })).some((key) => key.name === name)
}

/** Whether a password opens the repository, as stock restic would. */
async function opens(url: string, password: string): Promise<boolean> {
  const storage = await openStorage(url)
  try {
    await using _repository = await openRepository(storage, password, { signal })
    return true
  } catch (error) {
    if (isFault(error, 'wrong-key')) return false
    throw error
  }
}

const addKey: Verb = {
  name: 'vault key add',
  shortTrials: 2,
  args: ({ url }) => ['vault', 'key', 'add', 'third', '--vault', url],
  wasDone: 'exists',
  after: async ({ world, url }) => {
    const around = { ...world.around, env: { REDOUBT_VAULT_PASSWORD: newPassword } }
    await using vault = await openVaultAt(world.address(url), around)
    const keys = await vault.keys.list({ signal })
    assert.equal(keys.find(({ current }) => current)?.name, 'third')
    assert.ok(await opens(url, newPassword), 'the new password opens the repository')
  },
}

const removeKey: Verb = {
  name: 'vault key remove',
  shortTrials: 2,
  prepare: async (place) => {
    await using vault = await place.world.openVault(place.url)
    await vault.keys.add('third', newPassword, { signal })
  },
  args: ({ url }) => ['vault', 'key', 'remove', 'third', '--vault', url],
  wasDone: 'missing',
  after: async (place) => {
    assert.ok(!(await hasKey(place, 'third')), 'the password is gone')
    assert.ok(!(await opens(place.url, newPassword)), 'the password opens the repository no more')
  },
}

const check: Verb = {
  name: 'vault check',
  shortTrials: 1,
  args: ({ url }) => ['vault', 'check', '--vault', url],
}

const checkData: Verb = {
  name: 'vault check --read-data',
  shortTrials: 0,
  args: ({ url }) => ['vault', 'check', '--read-data', '--vault', url],
}

const prove: Verb = {
  name: 'restore --prove',
  shortTrials: 1,
  args: ({ world, url }) => {
    const source = ['--source', 'shop', '--server-bin', world.server.bin]
    return ['restore', '--prove', ...source, '--vault', url]
  },
  clean: async ({ env }) => endScratchServers(env['TMPDIR'] ?? ''),
  after: async (_place, { out }) => {
    assert.equal((JSON.parse(out) as { readonly ok: boolean }).ok, true)
  },
}

/** A proof that dies leaves its scratch server behind: it is in a folder of the trial's own. */
function endScratchServers(folder: string): void {
  for (const name of readdirSync(folder)) {
    const found = readdirSync(path.join(folder, name), { recursive: true, encoding: 'utf8' })
    for (const file of found.filter((one) => one.endsWith('postmaster.pid'))) {
      const pid = Number(readFileSync(path.join(folder, name, file), 'utf8').split('\n')[0])
      if (pid > 1 && existsSync(`/proc/${pid}`)) process.kill(pid, 'SIGQUIT')
    }
    rmSync(path.join(folder, name), { recursive: true, force: true })
  }
}

export const verbs: readonly Verb[] = [
  init,
  backupFiles,
  backupDatabase,
  forgetOld,
  prune,
  copyNew,
  copyEverything,
  addKey,
  removeKey,
  check,
  checkData,
  prove,
]

/** Runs the command again, as the user does who finds it dead, and sees that all is well. */
export async function runAgain(verb: Verb, place: Place): Promise<void> {
  const again = await ending(place.start(verb.args(place)))
  const refused = verb.wasDone !== undefined && again.out.includes(`"code":"${verb.wasDone}"`)
  assert.ok(again.code === 0 || refused, `the next run ended with ${again.code}: ${again.said}`)
  await verb.after?.(place, again)
  await verb.clean?.(place)
}
