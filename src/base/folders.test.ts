import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFault } from './faults.ts'
import { makeFolders } from './folders.ts'

test('makeFolders() makes what is missing, and ends where nothing can be made', async () => {
  const root = mkdtempSync(join(tmpdir(), 'redoubt-folders-'))
  try {
    const deep = join(root, 'a/b/c')
    const made = [join(root, 'a'), join(root, 'a/b'), deep]
    assert.deepEqual(await makeFolders(deep, 0o700), made)
    assert.equal(statSync(deep).mode & 0o777, 0o700)
    assert.deepEqual(await makeFolders(deep), [])
    // Two at the same time: each folder is made by one of them.
    const both = await Promise.all([makeFolders(join(root, 'x/y')), makeFolders(join(root, 'x/y'))])
    assert.deepEqual(both.flat().toSorted(), [join(root, 'x'), join(root, 'x/y')])
    writeFileSync(join(root, 'file'), '')
    await assert.rejects(makeFolders(join(root, 'file')), (e) => isFault(e, 'usage'))
    await assert.rejects(makeFolders(join(root, 'file/x')), { code: 'ENOTDIR' })
    await assert.rejects(makeFolders(join(root, 'n'.repeat(300))), { code: 'ENAMETOOLONG' })
    symlinkSync(join(root, 'nowhere'), join(root, 'link'))
    await assert.rejects(makeFolders(join(root, 'link/x')))
    mkdirSync(join(root, 'there'))
    symlinkSync(join(root, 'there'), join(root, 'way'))
    assert.deepEqual(await makeFolders(join(root, 'way/x')), [join(root, 'way/x')])
    // Here node's own recursive mkdir goes on for ever.
    await assert.rejects(makeFolders('/proc/nothing/below'), { code: 'ENOENT' })
  } finally {
    rmSync(root, { recursive: true, force: true })
  }
})
