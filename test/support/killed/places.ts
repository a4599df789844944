import { cpSync, existsSync, mkdirSync, rmSync } from 'node:fs'
import { eachLimit } from '#base/tasks'
import { openStorage } from '#storage/all'
import { createProbedBucket } from '../probed-bucket.ts'
import { type Env, succeed } from './command.ts'
import type { VaultWorld } from './vault-world.ts'
import type { Place } from './verbs.ts'

const putsAtOnce = 8
const signal = new AbortController().signal

/** A place for a row of trials: a copy of the world's vault, and a folder for what its processes leave lying about. */
export function makeFolderPlace(world: VaultWorld, name: string): Place {
  const common = commonOf(world, name)
  const template = world.scratch.join(`${name}-empty`)
  const url = world.clone(name)
  return {
    ...common,
    url,
    sibling: (other) => `${url}-${other}`,
    makeVault: async (at) => {
      if (!existsSync(template)) {
        await succeed(['vault', 'init', '--vault', template], common.env)
      }
      cpSync(template, at, { recursive: true })
    },
    remove: (at) => rmSync(at, { recursive: true, force: true }),
  }
}

/** The same in a bucket of its own. */
export async function makeBucketPlace(world: VaultWorld, name: string): Promise<Place> {
  const { ceph, bucket } = await createProbedBucket()
  // What looks at the vault in this process finds its way in as a user's command does.
  Object.assign(process.env, ceph.env)
  const common = commonOf(world, name)
  const env = { ...common.env, ...ceph.env }
  const url = ceph.url(bucket, 'vault')
  const [from, to] = [await openStorage(world.vault), await openStorage(url)]
  const objects = await Array.fromAsync(from.list(''))
  await eachLimit(objects, putsAtOnce, signal, async ({ key }) => to.put(key, await from.get(key)))
  return {
    ...common,
    env,
    url,
    sibling: (other) => ceph.url(bucket, other),
    makeVault: async (at) => void (await succeed(['vault', 'init', '--vault', at], env)),
    remove: () => undefined,
  }
}

function commonOf(world: VaultWorld, name: string) {
  const temporary = world.scratch.join(`${name}-tmp`)
  mkdirSync(temporary, { mode: 0o1777 })
  const own = { TMPDIR: temporary, REDOUBT_VAULT_NEW_PASSWORD: 'third password' }
  const env: Env = { ...world.env, ...own }
  const tree = world.scratch.join(`${name}-tree`)
  return { world, name, env, tree, snapshots: [...world.snapshots], trials: 0 }
}
