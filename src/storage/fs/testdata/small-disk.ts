import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { chunks, collect, pattern, rejects } from '../../storage.suite.ts'
import { openFsStorage } from '../fs.ts'

/**
 * Runs in a mount namespace of its own, with a file system of 2 MiB at the folder that it is given.
 */
const root = process.argv[2] ?? ''
const keysOf = async () => (await collect(storage.list(''))).map((info) => info.key)

const storage = await openFsStorage(root)
assert.deepEqual(storage.can, { conditionalPut: true, retention: false })
await storage.put('data/kept', pattern(500_000))
await rejects(storage.put('data/large', pattern(3_000_000)), 'full')
await rejects(storage.putStream('data/large', chunks(pattern(3_000_000), 65_536)), 'full')
await rejects(storage.put('data/kept', pattern(3_000_000)), 'full')
assert.deepEqual(readdirSync(join(root, 'data')), ['kept'], 'what did not fit is gone')
await storage.put('data/more', pattern(1_000_000))
await storage.delete('data/more')
assert.ok(pattern(500_000).equals(await storage.get('data/kept')))

writeFileSync(join(root, 'data', '.redoubt-tmp-00'), 'half')
execFileSync('sh', ['-c', 'mount -o remount,bind,ro "$1"', 'sh', root])
await rejects(storage.put('data/b', pattern(1)), 'denied')
await rejects(storage.delete('data/kept'), 'denied')
const later = () => Date.now() + 90_000_000
const reader = await openFsStorage(root, { now: later })
assert.deepEqual(reader.can, { conditionalPut: false, retention: false })
await rejects(reader.put('data/b', pattern(1), { ifAbsent: true }), 'unsupported')
assert.equal((await collect(reader.list(''))).length, 1, 'stale files cannot be swept here')
assert.deepEqual(await keysOf(), ['data/kept'])

execFileSync('sh', ['-c', 'umount --lazy "$1"', 'sh', root])
// Below the mount point stands an empty folder: it is not the store that was opened.
await rejects(keysOf(), 'unreachable')
await rejects(storage.stat('data/kept'), 'unreachable')
await rejects(storage.put('data/b', pattern(1)), 'unreachable')
assert.deepEqual(readdirSync(root), [])
process.stdout.write('all held')
