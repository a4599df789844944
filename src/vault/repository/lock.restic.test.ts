import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { after, before, test } from 'node:test'
import { Restic } from '../../../test/support/servers/restic.ts'
import { service } from '../../../test/support/servers/services.ts'
import { openFsStorage } from '../../storage/fs/fs.ts'
import { lockRepository } from './lock.ts'
import { openRepository } from './open.ts'
import type { Repository } from './repository.ts'

const signal = new AbortController().signal
const password = 'p'
/** What restic ends with when the repository is locked (0.14 has no code of its own for it). */
const lockedCode = { '0.19': 11, '0.14': 1 } as const

const triesMax = 20
let dir = ''
let repository: Repository

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'redoubt-lock-'))
  await new Restic({ repository: dir, password }).run(['init'])
  repository = await openRepository(await openFsStorage(dir), password, { signal })
})

after(async () => {
  await repository[Symbol.asyncDispose]()
  await rm(dir, { recursive: true, force: true })
})

for (const version of ['0.19', '0.14'] as const) {
  const restic = () => new Restic({ repository: dir, password, version })
  const backup = ['backup', '--stdin']

  test(`stock restic ${version} respects our locks, and reads them`, async () => {
    {
      await using _lock = await lockRepository(repository, 'shared', { signal })
      await restic().run(backup, { input: 'x' })
      const { stderr } = await restic().run(['prune'], { codes: [lockedCode[version]] })
      assert.match(stderr, new RegExp(`locked.* by PID ${process.pid} on`))
    }
    {
      await using _lock = await lockRepository(repository, 'exclusive', { signal })
      const { stderr } = await restic().run(backup, { input: 'x', codes: [lockedCode[version]] })
      assert.match(stderr, new RegExp(`locked exclusively by PID ${process.pid} on`))
    }
    await restic().run(['prune'])
    assert.deepEqual(await readdir(join(dir, 'locks')), [])
  })

  test(`our locks respect those of stock restic ${version}`, async () => {
    await using holder = await hold(version, backup)
    await assert.rejects(lockRepository(repository, 'exclusive', { signal }), {
      code: 'locked',
      message: new RegExp(`shared, process ${holder.pid} of`),
    })
    await using shared = await lockRepository(repository, 'shared', { signal })
    assert.equal(shared.signal.aborted, false)
  })

  test(`our locks respect the exclusive ones of stock restic ${version}`, async () => {
    await using holder = await hold(version, ['prune'])
    await assert.rejects(lockRepository(repository, 'shared', { signal }), {
      code: 'locked',
      message: new RegExp(`exclusive, process ${holder.pid} of`),
    })
  })
}

/** Starts restic and stops it in its tracks while its lock stands: again, when it was too quick for us. */
async function hold(version: '0.19' | '0.14', args: readonly string[]) {
  for (let tries = 1; tries <= triesMax; tries++) {
    const held = await tryToHold(version, args)
    if (held) return held
  }
  return assert.fail(`restic ${args[0]} was never met with its lock`)
}

async function tryToHold(version: '0.19' | '0.14', args: readonly string[]) {
  const { bin } = await service(version === '0.19' ? 'restic' : 'restic@bookworm')
  const child = spawn(join(bin, 'restic'), ['--no-cache', '-r', dir, ...args], {
    env: { ...process.env, RESTIC_PASSWORD: password },
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  const ended = once(child, 'close')
  const isLock = (name: string) => /^[0-9a-f]{64}$/.test(name)
  const isLocked = async () => (await readdir(join(dir, 'locks'))).some(isLock)
  const state = () => /\) (\w)/.exec(readFileSync(`/proc/${child.pid}/stat`, 'utf8'))?.[1]
  while (child.exitCode === null && !(await isLocked())) await delay(5)
  child.kill('SIGSTOP')
  while (child.exitCode === null && state() !== 'T') await delay(1)
  if (child.exitCode !== null || !(await isLocked())) {
    child.kill('SIGCONT')
    child.stdin.end('x')
    await ended
    return undefined
  }
  return {
    pid: child.pid,
    async [Symbol.asyncDispose]() {
      child.kill('SIGCONT')
      child.stdin.end('x')
      await ended
    },
  }
}
