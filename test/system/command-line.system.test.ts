import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { done, runCommand } from '../support/command.ts'
import { Scratch } from '../support/scratch.ts'

const home = path.resolve(import.meta.dirname, '../..')
const launcher = path.join(home, 'redoubt')
const scratch = new Scratch('command-line')
const env = { REDOUBT_VAULT_PASSWORD: 'correct-horse', REDOUBT_DATA: scratch.join('state') }
const vault = scratch.join('vault')
/** Takes connections and says nothing: whoever talks to it waits. */
let silent: Server
let port: number

before(async () => {
  silent = createServer((socket) => socket.on('error', () => undefined))
  silent.listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const address = silent.address()
  assert.ok(typeof address === 'object' && address !== null)
  port = address.port
  writeFileSync(scratch.join('file'), 'content')
  done(await runCommand(['vault', 'init', '--vault', vault], env))
  done(await runCommand(['backup', '--source', scratch.join('file'), '--vault', vault], env))
})
after(() => {
  silent.close()
  scratch[Symbol.dispose]()
})

const start = (program: string, args: readonly string[]): ChildProcess =>
  spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } })

async function ending(child: ChildProcess) {
  assert.ok(child.stdout && child.stderr)
  const [out, said, [code]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close') as Promise<[number | null]>,
  ])
  return { out, said, code }
}

test('compiled modules are kept beside the program, or with the caches of a user who may not write there', async () => {
  const place = scratch.join('program')
  mkdirSync(path.join(place, 'tools'), { recursive: true })
  mkdirSync(path.join(place, 'node_modules/.bin'), { recursive: true })
  copyFileSync(launcher, path.join(place, 'redoubt'))
  const write = (file: string, lines: string) =>
    writeFileSync(path.join(place, file), `#!/bin/sh\n${lines}\n`, { mode: 0o755 })
  write('tools/install.sh', ':')
  write('node_modules/.bin/node', 'echo "$NODE_COMPILE_CACHE"')
  const cacheOf = async (env: Record<string, string>) => {
    const child = spawn(path.join(place, 'redoubt'), [], { env: { PATH: '/usr/bin:/bin', ...env } })
    return (await ending(child)).out.trim()
  }
  // There is no folder to write to, as for a user who may not: to root none is closed.
  assert.equal(await cacheOf({ HOME: '/h' }), '/h/.cache/redoubt')
  assert.equal(await cacheOf({ HOME: '/h', XDG_CACHE_HOME: '/c' }), '/c/redoubt')
  mkdirSync(path.join(place, 'build'))
  assert.equal(await cacheOf({ HOME: '/h' }), path.join(place, 'build/compile-cache'))
  assert.equal(await cacheOf({ NODE_COMPILE_CACHE: '/own' }), '/own')
})

test('--version, version and the help of each verb', async () => {
  const { version } = JSON.parse(readFileSync(path.join(home, 'package.json'), 'utf8')) as {
    version: string
  }
  const { out } = await ending(start(launcher, ['--version']))
  assert.match(out, new RegExp(`^redoubt ${RegExp.escape(version)} \\(node `))
  assert.equal((done(await runCommand(['version'])) as { version: string }).version, version)
  const help = await ending(start(launcher, ['help']))
  const verbs = [...help.out.matchAll(/^ {2}([a-z]+) /gm)].map(([, verb]) => verb ?? '')
  assert.ok(verbs.length >= 8, help.out)
  for (const verb of verbs.filter((one) => one !== 'help')) {
    const page = await ending(start(launcher, ['help', verb]))
    assert.equal(page.code, 0, verb)
    assert.match(page.out, new RegExp(`^Usage: redoubt ${verb}`), verb)
  }
})

test('a reader that goes away ends a verb without a word; a full output is said', async () => {
  const shell = (line: string) => ending(start('bash', ['-c', `set -o pipefail; ${line}`]))
  const list = `'${launcher}' vault ls latest --vault '${vault}'`
  const closed = await shell(`${list} | true`)
  assert.deepEqual([closed.code, closed.said], [141, ''])
  const first = await shell(`${list} --json | head -c 1`)
  assert.deepEqual([first.out, first.said], ['{', ''])
  const full = await shell(`${list} > /dev/full`)
  assert.deepEqual([full.code, full.said], [1, 'redoubt: write to stdout: ENOSPC\n'])
})

test('each of the stop signals ends a verb that waits: exit 130, one document, nothing lost', async () => {
  const verbs: readonly (readonly string[])[] = [
    ['inspect', `postgres://u@127.0.0.1:${port}/x`],
    ['backup', '--source', `mysql://u@127.0.0.1:${port}`, '--vault', vault],
    ['protect', '--source', `postgres://u@127.0.0.1:${port}/x`, '--vault', vault],
  ]
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  for (const [number, verb] of verbs.entries()) {
    const connected = once(silent, 'connection')
    const child = start(launcher, [...verb, '--json'])
    const ended = ending(child)
    await connected
    child.kill(signals[number])
    const { out, said, code } = await ended
    assert.equal(code, 130, `${verb[0]}: ${out}${said}`)
    const { error } = JSON.parse(out) as { error: { code: string; message: string } }
    assert.equal(error.code, 'interrupted')
    assert.match(error.message, new RegExp(`stop ${verb[0]}: ${signals[number]} received`))
  }
  done(await runCommand(['vault', 'check', '--read-data', '--vault', vault], env))
})
