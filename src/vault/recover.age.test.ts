import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { FakeLog, source } from '../../test/support/archive.ts'
import { Scratch } from '../../test/support/scratch.ts'
import { ageDecrypt, zstdDecompress } from '../../test/support/servers/age.ts'
import { service } from '../../test/support/servers/services.ts'
import { runProgram } from '../../test/support/servers/tool.ts'
import { openFsStorage } from '#storage/fs'
import { parseKey } from './archive/names.ts'
import { initVault } from './vault.ts'

const { signal } = new AbortController()
const password = 'correct horse battery'

/** Opens the identity file as a user would: stock age asks for the passphrase on its terminal. */
async function openIdentity(file: string, to: string): Promise<void> {
  const { bin } = await service('age@bookworm')
  const command = `${path.join(bin, 'age')} -d -o ${to} ${file}`
  await runProgram('script', ['-qec', command, '/dev/null'], { input: `${password}\n` })
}

test('stock age and zstd recover the native log files from a vault directory, with the password alone', async () => {
  using scratch = new Scratch('recover')
  const folder = scratch.join('vault')
  const storage = await openFsStorage(folder, { create: true })
  const log = new FakeLog({ segmentBytes: 100_000 })
  {
    await using vault = await initVault(storage, { password, signal })
    await using writer = await vault.archive.openWriter(source, { signal })
    for (const block of log.blocks(0, 250_000, 7001)) {
      await writer.append(block, { signal })
      if (block.offset < 20_000) await writer.flush({ signal })
    }
    const noise = randomBytes(3_000_000)
    await writer.append(
      { ...log.block(250_000, 260_000), bytes: noise, next: 'x', closes: true, commits: [] },
      { signal },
    )
    await writer.settle({ signal })
    await writer.append(
      { ...log.block(0, 500), segment: 'odd "name"-1', first: 'x', next: 'y', history: 'h2' },
      { signal },
    )
    await writer.flush({ signal })
    await openIdentity(path.join(folder, 'identity/main.age'), scratch.join('identity.txt'))
    const keys = await Array.fromAsync(storage.list('log/'), ({ key }) => key)
    let whole = 0
    for (const key of keys) {
      const name = parseKey(key)
      if (!name) continue
      const sealed = readFileSync(path.join(folder, key))
      const native = await zstdDecompress(await ageDecrypt(sealed, scratch.join('identity.txt')))
      const from = Number(name.first === 'x' ? 0 : name.first)
      const wanted = log.bytes(from, Math.min(from + native.length, 250_000))
      assert.ok(native.subarray(0, wanted.length).equals(wanted), key)
      if (name.kind === 'full' && name.segment === 'seg-000002') {
        assert.ok(native.subarray(-noise.length).equals(noise))
      }
      if (name.kind === 'full') whole += 1
    }
    assert.equal(whole, 3)
  }
})

test('stock age refuses the identity file under another password', async () => {
  using scratch = new Scratch('recover')
  const folder = scratch.join('vault')
  await using vault = await initVault(await openFsStorage(folder, { create: true }), {
    password: 'other',
    signal,
  })
  assert.ok(vault.id)
  writeFileSync(scratch.join('none'), '')
  await assert.rejects(
    openIdentity(path.join(folder, 'identity/main.age'), scratch.join('identity.txt')),
  )
})
