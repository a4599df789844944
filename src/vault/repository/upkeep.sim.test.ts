import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { Dice } from '../../../test/support/dice.ts'
import {
  type Folder,
  hastyTime,
  makeRepository,
  noise,
  password,
  saveFolder,
} from '../../../test/support/repositories.ts'
import { MemStorage } from '../../storage/mem/mem.ts'
import { Crash, withFaults } from '../../storage/wrap/fault.ts'
import { withRetry } from '../../storage/wrap/retry.ts'
import type { Storage } from '#storage'
import { checkRepository } from './check.ts'
import { forgetSnapshots } from './forget.ts'
import { openRepository } from './open.ts'
import { pruneRepository } from './prune.ts'
import { parseUnusedLimit } from './prune-plan.ts'
import type { Repository } from './repository.ts'
import { decodeTree } from './tree-decoder.ts'

// Two machines with clocks that are an hour apart work on one vault: they back up, forget, prune, die in the midst of
// it, and meet a store that fails, answers late or lists late. Whatever happened, every snapshot gives back its bytes.

const signal = new AbortController().signal
const hourMs = 3_600_000
const seeds = Number(process.env['REDOUBT_SOAK_SEEDS'] ?? 6)
const stepsPerSeed = 14
const quick = { triesMax: 20, firstDelayMs: 1, delayMaxMs: 2 }

class World {
  nowMs = Date.UTC(2026, 0, 1)
  readonly storage = new MemStorage({ now: () => this.nowMs })
  /** What each snapshot must give back, by file. */
  readonly contents = new Map<string, ReadonlyMap<string, Buffer>>()
  readonly #dice: Dice
  #backups = 0

  constructor(seed: number) {
    this.#dice = new Dice(seed)
  }

  /** The store as a machine meets it this time. */
  #access(mayDie: boolean): Storage {
    const seed = this.#dice.roll(1_000_000)
    const rate = this.#dice.pick([0, 0, 0.1])
    const dies = mayDie && this.#dice.roll(3) === 0
    const crashAt = dies ? this.#dice.roll(14) : undefined
    const crashWhen = this.#dice.pick(['before', 'after'] as const)
    const listsLate = this.#dice.roll(4) === 0 ? 3 : 0
    return withRetry(withFaults(this.storage, { seed, rate, crashAt, crashWhen, listsLate }), quick)
  }

  /** One of two machines, an hour apart. */
  #time() {
    const skewMs = this.#dice.pick([hourMs, -hourMs])
    return { ...hastyTime, now: () => this.nowMs + skewMs }
  }

  #folder(): { readonly folder: Folder; readonly files: ReadonlyMap<string, Buffer> } {
    const files = new Map<string, Buffer>()
    for (let name = 0; name < 4; name++) {
      // Few different contents, so that snapshots share blobs, drop them, and take them up again.
      const content = this.#dice.roll(6)
      files.set(`f${name}`, noise(`content ${content}`, 2000 + content * 5000))
    }
    return { folder: Object.fromEntries(files), files }
  }

  async backUp(): Promise<string> {
    await using repository = await openRepository(this.#access(true), password, { signal })
    await using _lock = await repository.lock('shared', { signal, time: this.#time() })
    const { folder, files } = this.#folder()
    const time = new Date(Date.UTC(2026, 0, 1) + this.#backups++ * 1000).toISOString()
    const { id } = await saveFolder(repository, folder, { time })
    this.contents.set(id, files)
    return 'backed up'
  }

  async forget(): Promise<string> {
    await using repository = await openRepository(this.#access(true), password, { signal })
    const rules = { last: 1 + this.#dice.roll(3) }
    await forgetSnapshots(repository, { signal, rules, time: this.#time() })
    return 'forgot'
  }

  async prune(): Promise<string> {
    await using repository = await openRepository(this.#access(true), password, { signal })
    const report = await pruneRepository(repository, {
      signal,
      time: this.#time(),
      maxUnused: parseUnusedLimit(this.#dice.pick(['0', '20%'])),
    })
    return `pruned ${JSON.stringify(report)}`
  }

  /**
   * A machine falls asleep in its backup, its lock goes stale, another one forgets and prunes, and it wakes up before it has seen
   * that: the snapshot may then need what has just been marked.
   */
  async sleepyBackUp(): Promise<string> {
    await using asleep = await openRepository(this.storage, password, { signal })
    await asleep.loadIndex({ signal })
    const { folder, files } = this.#folder()
    for (const work of [() => this.forget(), () => this.prune()]) {
      await work().catch((error: unknown) => {
        if (!isExpected(error)) throw error
      })
      await this.dropLocks()
    }
    asleep.loadIndex = async () => undefined
    const { id } = await saveFolder(asleep, folder, { time: '2026-01-02T00:00:00Z' })
    this.contents.set(id, files)
    return 'backed up asleep'
  }

  async step(): Promise<string> {
    this.nowMs += this.#dice.roll(20) * hourMs
    try {
      switch (this.#dice.roll(8)) {
        case 0:
        case 1:
        case 2:
          return await this.backUp()
        case 3:
          return await this.forget()
        case 4:
          return await this.sleepyBackUp()
        default:
          return await this.prune()
      }
    } catch (error) {
      if (!isExpected(error)) throw error
      return `failed: ${String(error)}`
    } finally {
      await this.dropLocks()
    }
  }

  /** Whoever died is dead for those who come after, although he was a part of this process. */
  async dropLocks(): Promise<void> {
    for await (const { key } of this.storage.list('locks/')) await this.storage.delete(key)
  }

  /** Reads every file of every snapshot, by way of trees and blobs. */
  async assertWhole(said: string): Promise<void> {
    await using repository = await openRepository(this.storage, password, { signal })
    const snapshots = await repository.snapshots({ signal })
    await repository.loadIndex({ signal })
    for (const { id, tree } of snapshots) {
      const files = this.contents.get(id)
      // Whoever died behind the writing of the snapshot could not tell of it.
      const read = await readFiles(repository, await rootOf(repository, tree))
      if (files) assert.deepEqual(read, files, `${said}: snapshot ${id}`)
    }
    const report = await checkRepository(repository, {
      signal,
      time: hastyTime,
      readData: { kind: 'all' },
    })
    assert.deepEqual(
      report.findings.filter(({ severity }) => severity === 'error'),
      [],
      said,
    )
  }
}

function isExpected(error: unknown): boolean {
  if (error instanceof SuppressedError) {
    return isExpected(error.error) && isExpected(error.suppressed)
  }
  // A late listing makes prune refuse, or a look-up fail: that delays, and destroys nothing.
  return error instanceof Crash || isFault(error, 'refused', 'locked', 'missing', 'conflict')
}

async function rootOf(repository: Repository, tree: string): Promise<string> {
  for (const node of decodeTree(await repository.loadBlob('tree', tree, { signal }), tree)) {
    if (node.subtree !== undefined) return node.subtree
  }
  return assert.fail('a snapshot has a folder')
}

async function readFiles(repository: Repository, tree: string): Promise<Map<string, Buffer>> {
  const files = new Map<string, Buffer>()
  for (const node of decodeTree(await repository.loadBlob('tree', tree, { signal }), tree)) {
    const parts: Buffer[] = []
    for (const id of node.content ?? [])
      parts.push(await repository.loadBlob('data', id, { signal }))
    files.set(node.name.toString(), Buffer.concat(parts))
  }
  return files
}

for (let seed = 1; seed <= seeds; seed++) {
  test(`after any course of work every snapshot is whole, seed ${seed}`, async () => {
    const world = new World(seed)
    await (await makeRepository(world.storage))[Symbol.asyncDispose]()
    const course: string[] = []
    for (let step = 0; step < stepsPerSeed; step++) {
      course.push(await world.step())
      // What a sleeper or a late listing left unlisted is taken back by a prune within the grace period.
      await using repository = await openRepository(world.storage, password, { signal })
      await pruneRepository(repository, {
        signal,
        time: { ...hastyTime, now: () => world.nowMs },
        maxUnused: parseUnusedLimit('unlimited'),
      })
      await world.assertWhole(`seed ${seed}, step ${step}: ${course.join('; ')}`)
    }
    assert.ok(course.some((said) => said.startsWith('pruned')))
    assert.ok(course.some((said) => said.startsWith('backed up')))
  })
}
