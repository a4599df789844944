import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { Scratch } from '../../../../test/support/scratch.ts'
import { ageDecrypt, ageEncrypt } from '../../../../test/support/servers/age.ts'
import { createFileKey, decryptWith, encryptTo, headerFor, sealPayload } from './age.ts'
import { createIdentity, formatIdentity } from './keys.ts'
import { chunkSize } from './stream.ts'

const identity = createIdentity()
const sizes = [0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 3 * chunkSize, 1_000_003]

function keyFile(scratch: Scratch): string {
  const file = scratch.join('key.txt')
  writeFileSync(file, `# a comment\n${formatIdentity(identity)}\n`)
  return file
}

test('stock age decrypts what we encrypted, and we what stock age encrypted', async () => {
  using scratch = new Scratch('age')
  const key = keyFile(scratch)
  for (const size of sizes) {
    const plain = randomBytes(size)
    const file = encryptTo([createIdentity().recipient, identity.recipient], plain)
    assert.deepEqual(await ageDecrypt(file, key), plain, `size ${size}`)
    const theirs = await ageEncrypt(plain, identity.recipient.text)
    assert.deepEqual(decryptWith([identity], theirs), plain, `size ${size}`)
  }
})

test('stock age skips our own stanza', async () => {
  using scratch = new Scratch('age')
  const key = keyFile(scratch)
  for (const length of [0, 48, 600]) {
    const fileKey = createFileKey()
    const extra = { type: 'redoubt-log', args: ['a', 'b'], body: randomBytes(length) }
    const header = headerFor(fileKey, [identity.recipient], [extra])
    const file = Buffer.concat([header, ...sealPayload(fileKey, [Buffer.from('log bytes')])])
    assert.equal((await ageDecrypt(file, key)).toString(), 'log bytes')
  }
})
