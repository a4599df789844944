import type { ChildProcess } from 'node:child_process'
import { cpSync, linkSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import path from 'node:path'
import { Fault } from '#base/faults'
import { type CrashAt, type Env, startCommand } from './command.ts'
import { classOf, type VaultWorld } from './vault-world.ts'

/**
 * Where one verb is tried: vaults in a store of their own, which go back to what they were for each trial, and a folder
 * for what its processes leave lying about.
 */
export interface Place {
  readonly world: VaultWorld
  readonly name: string
  /** The vault, at first a copy of the world's. */
  readonly url: string
  readonly env: Env
  /** Files of its own to be backed up: trials of two verbs run side by side. */
  readonly tree: string
  /** Snapshots that must be in the vault, oldest first. */
  snapshots: string[]
  /** How many trials there were. */
  trials: number
  /** The URL of another vault in the same kind of store. */
  sibling(name: string): string
  /** Remembers what all of its vaults are, and what its processes keep beside them. */
  keep(): Promise<void>
  /** Makes them that again. */
  reset(): Promise<void>
  /** What became of the vaults since: all that is new, changed or gone, without random names and times. */
  changes(): Promise<string[]>
  /** Starts a command, which is killed there. */
  start(args: readonly string[], crash?: CrashAt): ChildProcess
  /** Starts a command, and returns what it did with its store while `use` ran. */
  count(
    args: readonly string[],
    use: (child: ChildProcess) => Promise<void>,
  ): Promise<readonly string[]>
}

/** What the places have in common: what a verb's processes keep on the local disk. */
export class LocalSide {
  readonly world: VaultWorld
  readonly name: string
  readonly tree: string
  readonly env: Env
  snapshots: string[]
  trials = 0
  readonly #state: string
  readonly #kept: string
  #snapshots: readonly string[] = []

  constructor(world: VaultWorld, name: string, env: Env = {}) {
    this.world = world
    this.name = name
    this.tree = world.scratch.join(`${name}-tree`)
    this.snapshots = [...world.snapshots]
    this.#state = world.scratch.join(`${name}-state`)
    this.#kept = world.scratch.join(`${name}-state-kept`)
    const temporary = world.scratch.join(`${name}-tmp`)
    mkdirSync(temporary, { mode: 0o1777 })
    mkdirSync(this.#state)
    this.env = {
      ...world.env,
      ...env,
      TMPDIR: temporary,
      REDOUBT_DATA: this.#state,
      REDOUBT_VAULT_NEW_PASSWORD: 'third password',
    }
  }

  keepState(): void {
    this.#snapshots = [...this.snapshots]
    rmSync(this.#kept, { recursive: true, force: true })
    cpSync(this.#state, this.#kept, { recursive: true })
  }

  resetState(): void {
    this.snapshots = [...this.#snapshots]
    rmSync(this.#state, { recursive: true, force: true })
    cpSync(this.#kept, this.#state, { recursive: true })
  }
}

/** An object that appeared, by what it is: ids are random, and so are the names of temporary files. */
export function shapeOf(vault: string, key: string): string {
  const shape = key
    .replaceAll(/[0-9a-f]{16,}/g, '#')
    .replace(/\.redoubt-tmp-.*/, '.redoubt-tmp-#')
    .replaceAll(/\d{8}T?\d{6,}Z?|\d{13,}/g, '#')
  return `${vault} ${classOf(key)} ${shape.startsWith('data/') ? 'data/#' : shape}`
}

/** Vaults in folders. Unchanged files share their bytes with what is kept: a store never writes into a file that is there. */
export class FolderPlace extends LocalSide implements Place {
  readonly url: string
  readonly #vaults: string
  readonly #kept: string
  /** Files of the vaults as they were, and which they were. */
  #inodes = new Map<string, number>()

  constructor(world: VaultWorld, name: string) {
    super(world, name)
    this.#vaults = world.scratch.join(name)
    this.#kept = world.scratch.join(`${name}-kept`)
    this.url = this.sibling('vault')
    cpSync(world.vault, this.url, { recursive: true })
  }

  sibling(name: string): string {
    return path.join(this.#vaults, name)
  }

  async keep(): Promise<void> {
    this.keepState()
    rmSync(this.#kept, { recursive: true, force: true })
    linkTree(this.#vaults, this.#kept)
    this.#inodes = this.#look()
  }

  async reset(): Promise<void> {
    this.resetState()
    rmSync(this.#vaults, { recursive: true, force: true })
    linkTree(this.#kept, this.#vaults)
  }

  async changes(): Promise<string[]> {
    const [before, now] = [this.#inodes, this.#look()]
    const changed: string[] = []
    for (const [file, inode] of now) {
      const [vault = '', ...key] = file.split('/')
      const known = before.get(file)
      if (known === undefined) changed.push(`+ ${shapeOf(vault, key.join('/'))}`)
      else if (known !== inode) changed.push(`~ ${file}`)
    }
    for (const file of before.keys()) if (!now.has(file)) changed.push(`- ${file}`)
    return changed.sort()
  }

  start(args: readonly string[], crash?: CrashAt): ChildProcess {
    return startCommand(args, this.env, crash)
  }

  async count(args: readonly string[], use: (child: ChildProcess) => Promise<void>) {
    const file = this.world.scratch.join(`${this.name}-operations`)
    rmSync(file, { force: true })
    const counting = { ...this.env, REDOUBT_TEST_OPERATIONS: file }
    await use(startCommand(args, counting, { at: -1, moment: 'before' }))
    return readFileSync(file, 'utf8').trim().split('\n')
  }

  #look(): Map<string, number> {
    const found = readdirSync(this.#vaults, { recursive: true, withFileTypes: true })
    const files = found.filter((entry) => entry.isFile())
    return new Map(
      files.map(({ parentPath, name }) => {
        const file = path.join(parentPath, name)
        return [path.relative(this.#vaults, file), statSync(file).ino]
      }),
    )
  }
}

/** A tree of the same files under other names. */
function linkTree(from: string, to: string): void {
  mkdirSync(to)
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const [source, target] = [path.join(from, entry.name), path.join(to, entry.name)]
    if (entry.isDirectory()) linkTree(source, target)
    else if (entry.isFile()) linkSync(source, target)
    else throw new Fault('unsupported', `copy ${source}: neither a file nor a folder`)
  }
}
