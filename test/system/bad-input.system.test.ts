import assert from 'node:assert/strict'
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { isFault } from '#base/faults'
import { silentLog } from '#base/log'
import { createProgress } from '#base/progress'
import { seededRandom } from '#base/random'
import { restoreTrees } from '#service/restore-files'
import { checkVault, type VaultCheck } from '#service/upkeep'
import { done, errorOf, refused, runCommand, twoAtATime } from '../support/command.ts'
import { Guarded, vaultPassword as password } from '../support/guarded.ts'
import { SmallDisk } from '../support/small-disk.ts'

const guarded = await Guarded.begin('bad-input')
const { scratch, vault, env } = guarded
const tree = scratch.join('tree')
const run = (...args: readonly string[]) => guarded.run(...args)

before(async () => {
  makeTree(tree)
  done(await run('backup', '--source', tree, '--vault', vault))
})
after(() => guarded[Symbol.dispose]())

type Refusal = readonly [args: string, code: number, said: RegExp]

/** VAULT, TREE and NEW stand for places; the words are split at blanks, '' is an empty one. */
const refusals: readonly Refusal[] = [
  ['nonsense', 2, /unknown command 'nonsense'/],
  ['vault nonsense', 2, /unknown command 'nonsense'/],
  ['backup', 2, /--source <url-or-dir>' not specified/],
  ['restore', 2, /--vault <url>' not specified/],
  ['window', 2, /--vault <url>' not specified/],
  ['inspect', 2, /missing required argument 'url'/],
  ['inspect a b', 2, /too many arguments/],
  ['demo --twice', 2, /unknown option '--twice'/],
  ['backup --source TREE --vault VAULT --nonsense', 2, /unknown option '--nonsense'/],
  ['backup --source TREE --vault VAULT extra', 2, /too many arguments/],
  ["backup --source '' --vault VAULT", 2, /--source <url-or-dir>' argument '' is invalid/],
  ["backup --source TREE --vault ''", 2, /--vault <url>' argument '' is invalid/],
  ["backup --source TREE --vault VAULT --tag ''", 2, /--tag <tag>' argument '' is invalid/],
  ["backup --source TREE --vault VAULT --host ''", 2, /--host <name>' argument '' is invalid/],
  ["backup --source TREE --vault VAULT --exclude ''", 2, /--exclude <pattern>' argument ''/],
  ['backup --source TREE --vault ftp://x/y', 2, /"ftp:\/\/x\/y": unknown scheme/],
  ['backup --source TREE --vault s3://', 2, /s3:\/\//],
  ['backup --source TREE --vault s3://bucket/p?nonsense=1', 2, /nonsense/],
  ['backup --source TREE --vault NEW', 4, /NEW: no such folder/],
  ['vault init --vault /proc/nothing/below', 4, /make file:\/\/\/proc\/nothing\/below: ENOENT/],
  ['vault init --vault /dev/null/x', 4, /make file:\/\/\/dev\/null\/x: ENOTDIR/],
  ['vault init --vault /etc/passwd', 2, /\/etc\/passwd is a file/],
  ['protect --source postgres://127.0.0.1:1/x --vault VAULT --state /proc/x', 4, /ECONNREFUSED/],
  ['restore --vault VAULT --to /proc/nothing/below', 1, /\/proc\/nothing\/below: ENOENT/],
  ['backup --source /nonexistent --vault VAULT', 1, /"\/nonexistent": nothing is there/],
  ['backup --source redis://x --vault VAULT', 2, /no engine has the scheme 'redis:'/],
  ['backup --source postgres://h/ --source TREE --vault VAULT', 2, /a backup of its own/],
  ['backup --source TREE --vault VAULT --base zip', 2, /'zip' is not one of physical/],
  ['backup --source TREE --vault VAULT --base physical', 2, /--base is for databases only/],
  ['backup --source TREE --vault VAULT --name shop', 2, /--name is for databases only/],
  ['backup --source postgres://h/ --vault VAULT --exclude x', 2, /--exclude is for files only/],
  ['backup --source TREE --vault VAULT --compression best', 2, /'best' is not one of off/],
  ['backup --source TREE --vault VAULT --parallel 0', 2, /--parallel: '0' is not a whole number/],
  ['backup --source TREE --vault VAULT --parallel -1', 2, /--parallel: '-1'/],
  ['backup --source TREE --vault VAULT --parallel 1e9', 2, /--parallel: '1e9'/],
  ['backup --source TREE --vault VAULT --parallel 999999999', 2, /from 1 to 64/],
  ['backup --source TREE --vault VAULT --limit fast', 2, /--limit: 'fast' is not a size/],
  ['backup --source TREE --vault VAULT --limit 0', 2, /--limit: '0' is not a size/],
  ['backup --source TREE --vault VAULT --limit -5MB/s', 2, /--limit: '-5MB\/s' is not a size/],
  ['backup --source TREE --vault VAULT --exclude-larger-than big', 2, /'big' is not a size/],
  ['backup --source TREE --vault VAULT --exclude-file NEW', 1, /read the patterns in NEW/],
  ['backup --source TREE --vault VAULT --exclude [', 2, /"\[" is malformed/],
  ['backup --source TREE --vault VAULT --exclude-if-present a/b', 2, /"a\/b"/],
  ['backup --source TREE --vault VAULT --log-level loud', 2, /--log-level: 'loud'/],
  ['backup --source TREE --vault VAULT --password-file NEW', 1, /password file NEW: ENOENT/],
  ['protect --source TREE --vault VAULT', 2, /it is not a URL/],
  ['protect --source postgres://127.0.0.1:1/x --vault VAULT', 4, /127\.0\.0\.1:1\/x: ECONNREFUSED/],
  ['protect --source mysql://127.0.0.1:1/x --vault VAULT', 4, /127\.0\.0\.1:1: ECONNREFUSED/],
  ['protect --source postgres://127.0.0.1:99999/x --vault VAULT', 2, /99999/],
  ['protect --source postgres://127.0.0.1:p/x --vault VAULT', 2, /127\.0\.0\.1:p/],
  ['protect --source mysql://127.0.0.1:p/x --vault VAULT', 2, /it is no URL/],
  ['protect --source mongodb://h/x --vault VAULT', 2, /no engine has the scheme 'mongodb:'/],
  ['protect --source mysql://127.0.0.1:1 --vault VAULT --name ../../x', 2, /--name: '..\/..\/x'/],
  ['protect --source mysql://127.0.0.1:1 --vault VAULT --durability sync', 2, /'sync'/],
  ['protect --source mysql://127.0.0.1:1 --vault VAULT --copies 1', 2, /--copies 1 with/],
  [
    'protect --source mysql://127.0.0.1:1 --vault VAULT --durability strict --copies 2',
    2,
    /--copies 2 with 1 vaults/,
  ],
  ['protect --source mysql://127.0.0.1:1 --vault VAULT --copies 0', 2, /--copies: '0'/],
  ['protect --source mysql://127.0.0.1:1 --vault VAULT --vault VAULT', 2, /was named twice/],
  ['protect --source mysql://127.0.0.1:1 --vault VAULT --base-every daily', 2, /'daily'/],
  ['protect --source mysql://127.0.0.1:1 --vault VAULT --base-every 0s', 2, /'0s'/],
  ['protect --source mysql://127.0.0.1:1 --vault VAULT --journal-limit lots', 2, /'lots'/],
  ['protect --source mysql://127.0.0.1:1 --vault VAULT --keep-daily -7', 2, /--keep-daily '-7'/],
  ['protect --source mysql://127.0.0.1:1 --vault VAULT --keep-within 1x', 2, /'1x'/],
  ['inspect nonsense', 2, /it has no scheme/],
  ['inspect mongodb://x', 2, /scheme 'mongodb:'/],
  ['inspect postgres://127.0.0.1:1/x --for fun', 2, /--for: 'fun'/],
  ['window --vault VAULT --source nosuch', 1, /no source 'nosuch'/],
  ['restore --vault VAULT', 2, /--to is missing/],
  ['restore --vault VAULT --at yesterday --to NEW', 1, /snapshot yesterday/],
  ['restore --vault VAULT --at 1999-01-01 --to NEW', 1, /1999-01-01/],
  ['restore --vault VAULT --source nosuch --to NEW', 1, /no source 'nosuch'/],
  ['restore --vault VAULT --source /nosuch --to NEW', 1, /none that fits/],
  ['restore --vault VAULT --prove', 1, /no database source/],
  ['restore --vault VAULT --map x --to NEW', 2, /--map: 'x' is not old=new/],
  ['restore --vault VAULT --parallel none --to NEW', 2, /--parallel: 'none'/],
  ['restore --vault VAULT --overwrite maybe --to NEW', 2, /--overwrite: 'maybe'/],
  ['vault init --vault VAULT', 1, /there is one already/],
  ['vault ls --vault VAULT nosuch', 1, /snapshot nosuch/],
  ['vault ls --vault TREE', 4, /it has no identity file/],
  ['vault check --vault VAULT --read-data-subset 8/7', 2, /'8\/7'/],
  ['vault check --vault VAULT --read-data-subset 200%', 2, /'200%'/],
  ['vault check --vault VAULT --read-data-subset some', 2, /'some'/],
  ['vault forget --vault VAULT', 2, /no rule and no snapshot/],
  ['vault forget --vault VAULT nosuch', 1, /'nosuch'/],
  ['vault forget --vault VAULT --keep-last x', 2, /--keep-last 'x'/],
  ['vault forget --vault VAULT --keep-last 0', 2, /no rule/],
  ['vault forget --vault VAULT --keep-within forever', 2, /'forever'/],
  ['vault forget --vault VAULT --keep-last 1 --group-by color', 2, /'color'/],
  ['vault prune --vault VAULT --max-unused 101%', 2, /'101%'/],
  ['vault prune --vault VAULT --max-repack-size x', 2, /--max-repack-size: 'x'/],
  ['vault prune --vault VAULT --grace -1h', 2, /--grace: '-1h'/],
  ['vault copy --vault VAULT', 2, /--to <url>' not specified/],
  ['vault copy --vault VAULT --to VAULT', 2, /it is the same/],
  ['vault copy --vault VAULT --to NEW', 4, /NEW: no such folder/],
  ['vault key explode --vault VAULT', 2, /'explode' is not one of/],
  ['vault key add --vault VAULT', 2, /the name is missing/],
  ['vault key enrol x --vault VAULT', 2, /--archiver-file is missing/],
  ['vault key enrol x --vault VAULT --archiver-file /nonexistent/x', 1, /nonexistent\/x: ENOENT/],
  ['vault key strike x --vault VAULT', 1, /strike archiver x off at .*: there is none/],
  ['completion tcsh', 2, /'tcsh' is not one of bash, zsh, fish/],
  ['protect --source mysql://127.0.0.1:1 --vault VAULT --lock forever', 2, /--lock: 'forever'/],
  ['protect --source mysql://h --vault VAULT --archiver-file NEW', 1, /archiver file NEW: ENOENT/],
  [
    'protect --source mysql://h --vault VAULT --archiver-file /etc/passwd',
    1,
    /archiver file \/etc\/passwd: it is no/,
  ],
  [
    'protect --source mysql://h --vault VAULT --vault TREE --archiver-file NEW',
    2,
    /1 --archiver-file for 2 vaults/,
  ],
  ['vault key add x --vault VAULT', 2, /no new password was given/],
  ['vault key remove nosuch --vault VAULT', 1, /nosuch/],
  ['vault key remove main --vault VAULT', 5, /the one that opened the vault/],
  ['vault stats --vault VAULT --nonsense', 2, /unknown option/],
]

test('nonsense in every option is refused, named, and changes nothing', async () => {
  const stored = storedBytes(vault)
  const nowhere = scratch.join('new')
  const places: Readonly<Record<string, string>> = { VAULT: vault, TREE: tree, NEW: nowhere }
  await twoAtATime(refusals, async ([line, code, said]) => {
    const args = line.split(' ').map((word) => (word === "''" ? '' : (places[word] ?? word)))
    const ran = await run(...args)
    assert.ok(!(ran.out + ran.said).includes(password), line)
    refused(ran, line, code, new RegExp(said.source.replaceAll('NEW', nowhere)))
  })
  assert.deepEqual(storedBytes(vault), stored)
  assert.throws(() => readdirSync(nowhere), { code: 'ENOENT' })
})

test('a wrong password exits 4, none at all 2, and neither changes the vault', async () => {
  const stored = storedBytes(vault)
  const wrong = { ...env, REDOUBT_VAULT_PASSWORD: 'incorrect' }
  for (const verb of [['vault', 'ls'], ['window'], ['restore', '--to', scratch.join('new')]]) {
    const ran = await runCommand([...verb, '--vault', vault], wrong)
    refused(ran, verb.join(' '), 4, /the password opens no identity/)
    assert.equal(errorOf(ran)?.code, 'wrong-key')
    assert.doesNotMatch(ran.out + ran.said, /incorrect/)
  }
  const none = { ...env, REDOUBT_VAULT_PASSWORD: '' }
  refused(await runCommand(['vault', 'ls', '--vault', vault], none), 'none', 2, /no password/)
  assert.deepEqual(storedBytes(vault), stored)
})

test('files are restored onto what is there only when told to', async () => {
  const target = scratch.join('occupied')
  mkdirSync(target)
  writeFileSync(path.join(target, 'mine'), 'mine')
  const args = ['restore', '--vault', vault, '--subpath', tree, '--to', target]
  refused(await run(...args), 'not empty', 5, /occupied/)
  assert.deepEqual(contents(target), { mine: 'mine' })
  done(await run(...args, '--force'))
  assert.deepEqual(contents(target), { ...contents(tree), mine: 'mine' })
})

test('a full disk is said, and the backup goes through once there is room', async () => {
  const small = scratch.join('small')
  using disk = new SmallDisk(small, 16)
  const place = path.join(small, 'vault')
  done(await run('vault', 'init', '--vault', place))
  done(await run('backup', '--source', tree, '--vault', place))
  const big = scratch.join('big')
  mkdirSync(big)
  writeFileSync(path.join(big, 'noise'), noise(6_000_000))
  disk.fill()
  refused(await run('backup', '--source', big, '--vault', place), 'full', 1, /ENOSPC/)
  disk.makeRoom()
  done(await run('backup', '--source', big, '--vault', place))
  done(await run('vault', 'check', '--read-data', '--vault', place))
  for (const source of [tree, big]) {
    const to = `${source}-restored`
    const args = ['--source', source, '--subpath', source, '--to', to]
    done(await run('restore', '--vault', place, ...args))
    assert.deepEqual(contents(to), contents(source))
  }
})

test('every stored object flipped, truncated, deleted: check names it, restore gives no wrong bytes', async () => {
  const wanted = contents(tree)
  const objects = Object.keys(contents(vault)).filter((key) => !key.startsWith('locks/'))
  assert.ok(objects.length >= 8, `${objects.length} objects`)
  const unseen: string[] = []
  let number = 0
  for (const object of objects) {
    for (const damage of damages) {
      const copy = scratch.join(`damaged-${number++}`)
      cpSync(vault, copy, { recursive: true })
      damage.to(path.join(copy, object))
      const to = `${copy}-restored`
      const found = await findDamage(copy)
      const restored = await outcome(() => restoreTree(copy, to))
      const what = `${object} ${damage.name}`
      if (restored === 'done') assert.deepEqual(contents(to), wanted, what)
      else assert.ok(isSaid(restored), `${what}: ${String(restored)}`)
      if (!found && !isHarmless(object, damage.name)) unseen.push(what)
      rmSync(copy, { recursive: true })
      rmSync(to, { recursive: true, force: true })
    }
  }
  assert.deepEqual(unseen, [])
})

/**
 * What no check can miss: a snapshot that is gone looks as one that was forgotten (only a base is recorded elsewhere
 * too), and the vault's record is written anew from the identity by whoever opens the vault next.
 */
function isHarmless(object: string, damage: string): boolean {
  return damage === 'deleted' && /^(snapshots\/|catalog\/vault\.json$)/.test(object)
}

type Damage = { readonly name: string; readonly to: (file: string) => void }

const damages: readonly Damage[] = [
  {
    name: 'flipped',
    to: (file) => {
      const bytes = readFileSync(file)
      const middle = Math.floor(bytes.length / 2)
      bytes[middle] = (bytes[middle] ?? 0) ^ 0x10
      rmSync(file)
      writeFileSync(file, bytes)
    },
  },
  {
    name: 'truncated',
    to: (file) => {
      const bytes = readFileSync(file)
      rmSync(file)
      writeFileSync(file, bytes.subarray(0, Math.floor(bytes.length / 2)))
    },
  },
  { name: 'deleted', to: (file) => rmSync(file) },
]

const around = { env, log: silentLog, signal: new AbortController().signal }

/** Whether `vault check --read-data` sees that something is wrong. */
async function findDamage(url: string): Promise<boolean> {
  const options = { readData: { kind: 'all' }, progress: createProgress('check') } as const
  const check = await outcome(() => checkVault({ url, index: 0 }, options, around))
  if (check === 'done') return false
  assert.ok(isSaid(check), String(check))
  return true
}

async function restoreTree(url: string, directory: string): Promise<void> {
  const settings = { vault: { url, index: 0 }, at: 'latest', directory, subpath: tree }
  await restoreTrees({ ...settings, progress: createProgress('restore') }, around)
}

class Damaged extends Error {}

/** `done`, or how it failed; a check that reports damage counts as failed. */
async function outcome(work: () => Promise<unknown>): Promise<unknown> {
  try {
    const result = await work()
    const { ok = true, log = [] } = (result ?? {}) as Partial<VaultCheck>
    const warned = log.some(({ severity }) => severity !== 'notes')
    return ok && !warned ? 'done' : new Damaged('reported')
  } catch (error) {
    return error
  }
}

function isSaid(error: unknown): boolean {
  return error instanceof Damaged || isFault(error)
}

function makeTree(folder: string): void {
  mkdirSync(path.join(folder, 'odd "names"\n😀'), { recursive: true })
  writeFileSync(path.join(folder, "it's \\ odd"), 'quotes')
  writeFileSync(path.join(folder, 'odd "names"\n😀', 'empty'), '')
  writeFileSync(path.join(folder, 'noise'), noise(200_000))
}

function noise(size: number): Buffer {
  const random = seededRandom(size)
  return Buffer.from(Array.from({ length: size }, () => Math.floor(random() * 256)))
}

/** Every file below a folder by its path. */
function contents(folder: string): Record<string, string> {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true })
  const files = entries.filter((entry) => entry.isFile())
  return Object.fromEntries(
    files
      .map((entry) => path.join(entry.parentPath, entry.name))
      .map((file) => [path.relative(folder, file), readFileSync(file, 'latin1')] as const)
      .toSorted(([a], [b]) => (a < b ? -1 : 1)),
  )
}

/** What a vault holds, save locks that a killed command may leave. */
function storedBytes(folder: string): Record<string, string> {
  return Object.fromEntries(
    Object.entries(contents(folder)).filter(([k]) => !k.startsWith('locks/')),
  )
}
