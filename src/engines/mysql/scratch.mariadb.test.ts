import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { test } from 'node:test'
import { text } from 'node:stream/consumers'
import { Scratch } from '../../../test/support/scratch.ts'
import { service } from '../../../test/support/servers/services.ts'
import { until } from '../../../test/support/mysql-family-harness.ts'

const holder = `
  const { findPrograms, initialise, LocalServer } = await import(process.argv[1])
  const [bin, dataDirectory] = process.argv.slice(2)
  const signal = AbortSignal.timeout(600_000)
  const options = { programs: findPrograms('mariadb', bin), dataDirectory, signal }
  await initialise(options)
  const server = await LocalServer.start({ ...options, settings: ['skip-log-bin'] })
  process.stdout.write(server.pid + '\\n')
  await new Promise((resolve) => setTimeout(resolve, 600_000))
`

test('a scratch server ends with the process that started it, even by SIGKILL', async () => {
  using scratch = new Scratch('mortal')
  const { bin } = await service('mariadb10')
  const own = join(import.meta.dirname, 'scratch.ts')
  const args = ['--input-type=module', '-e', holder, own, bin, scratch.join('data')]
  const parent = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  const said = text(parent.stderr)
  const [line] = (await Promise.race([
    once(parent.stdout, 'data'),
    once(parent, 'exit').then(async () => assert.fail(await said)),
  ])) as [Buffer]
  const pid = Number(line.toString())
  assert.ok(isAlive(pid))
  parent.kill('SIGKILL')
  await until(() => !isAlive(pid), 'the server to end')
})

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'ESRCH')
    return false
  }
}
