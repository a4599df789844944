import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import type { Protection } from '../../src/demo/redoubt.ts'
import { FaultProxy, type NetworkFaults } from './fault-proxy.ts'
import { type Guarded, untilGuarded } from './guarded.ts'

/** What the network between server and archiver does in turn, and whether a commit gets through meanwhile. */
const weathers: readonly (readonly [name: string, faults: NetworkFaults, passes: boolean])[] = [
  ['slow', { delayMs: 150, jitterMs: 100, bytesPerSecond: 40_000 }, true],
  ['no acknowledgement arrives', { silent: ['up'] }, false],
  ['no log arrives', { silent: ['down'] }, false],
  ['half-open', { silent: ['up', 'down'] }, false],
]
/** Longer than the network needs when all is well, and much shorter than anybody's patience. */
const surelyWaitsMs = 2500
const healsWithinMs = 300_000

/** A server whose commits wait for the vault; each insert takes a new number. */
export type StrictServer = {
  readonly url: string
  readonly port: number
  insert(n: number): Promise<unknown>
  kill9(): Promise<void>
}

/**
 * Commits one row after the other while the network between server and archiver misbehaves and heals; then server and
 * archiver die together. No commit may return before the vault has it, and none may wait for long after the network
 * has healed, nobody doing anything about it. Returns the rows whose commits returned.
 */
export async function commitOverBadNetwork(
  server: StrictServer,
  guarded: Guarded,
): Promise<number[]> {
  await using proxy = await FaultProxy.start({ port: server.port })
  const url = server.url.replace(`:${server.port}/`, `:${proxy.port}/`)
  await using protection = guarded.protect(url, ['--durability', 'strict'])
  await untilGuarded(protection)
  const returned: number[] = []
  let next = 0
  const commit = async () => {
    const n = next++
    await server.insert(n)
    returned.push(n)
  }
  await commit()
  for (const [name, faults, passes] of weathers) {
    proxy.set(faults)
    const waiting = commit()
    if (!passes) {
      const first = await Promise.race([waiting.then(() => 'returned'), delay(surelyWaitsMs)])
      assert.equal(first, undefined, `${name}: the commit returned`)
      // The connections of before stay as they are, as a network leaves them: only what is sent from now on arrives.
      proxy.set({})
    }
    await within(waiting, name, protection)
    proxy.set({})
  }
  proxy.resetAll()
  for (let more = 0; more < 5; more++) await within(commit(), 'reset', protection)
  assert.equal(protection.news?.degraded, undefined)
  await Promise.all([protection.kill9(), server.kill9()])
  assert.equal(returned.length, next)
  return returned
}

async function within(waiting: Promise<void>, name: string, protection: Protection): Promise<void> {
  const late = new AbortController()
  const limit = delay(healsWithinMs, 'late', { signal: late.signal })
  const first = await Promise.race([waiting, limit])
  late.abort()
  await limit.catch(() => undefined)
  const { news } = protection
  assert.notEqual(first, 'late', `${name}: the commit still waits: ${JSON.stringify(news)}`)
}
