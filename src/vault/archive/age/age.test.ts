import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import * as oracle from 'age-encryption'
import { Fault, isFault } from '#base/faults'
import {
  createFileKey,
  decryptWith,
  decryptWithPassphrase,
  encryptTo,
  encryptWithPassphrase,
  headerFor,
  openFile,
  openStream,
  sealPayload,
  sealStream,
  unlock,
} from './age.ts'
import { decodeBech32, encodeBech32 } from './bech32.ts'
import { createIdentity, formatIdentity, parseIdentity, parseRecipient } from './keys.ts'
import { chunkSize } from './stream.ts'

/** Sizes around the borders of one and two chunks, and a few in between. */
const sizes = [0, 1, 15, 16, 1000].concat(
  [1, 2].flatMap((chunks) => [-17, -16, -1, 0, 1, 16, 17].map((d) => chunks * chunkSize + d)),
)
const identity = createIdentity()
const workFactor = 4

async function* inPieces(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

async function collect(pieces: AsyncIterable<Buffer>): Promise<Buffer> {
  const all: Buffer[] = []
  for await (const piece of pieces) all.push(piece)
  return Buffer.concat(all)
}

test('the npm library decrypts what encryptTo() wrote, at every size around a chunk border', async () => {
  const decrypter = new oracle.Decrypter()
  decrypter.addIdentity(formatIdentity(identity))
  for (const size of sizes) {
    const plain = randomBytes(size)
    const other = createIdentity()
    const file = encryptTo([other.recipient, identity.recipient], plain)
    assert.deepEqual(Buffer.from(await decrypter.decrypt(file)), plain, `size ${size}`)
    assert.deepEqual(decryptWith([other], file), plain)
  }
})

test('decryptWith() reads what the npm library wrote', async () => {
  const encrypter = new oracle.Encrypter()
  encrypter.addRecipient(identity.recipient.text)
  for (const size of sizes) {
    const plain = randomBytes(size)
    const file = Buffer.from(await encrypter.encrypt(plain))
    assert.deepEqual(decryptWith([identity], file), plain, `size ${size}`)
    const opened = await openFile(inPieces(file, 1000))
    const fileKey = unlock(opened.header, [identity])
    assert.deepEqual(await collect(openStream(fileKey, opened.payload)), plain)
  }
})

test('passphrases go both ways between us and the npm library', async () => {
  const plain = randomBytes(1234)
  const encrypter = new oracle.Encrypter()
  encrypter.setPassphrase('correct horse')
  encrypter.setScryptWorkFactor(workFactor)
  const theirs = Buffer.from(await encrypter.encrypt(plain))
  assert.deepEqual(await decryptWithPassphrase('correct horse', theirs), plain)
  const decrypter = new oracle.Decrypter()
  decrypter.addPassphrase('correct horse')
  const ours = await encryptWithPassphrase('correct horse', plain, workFactor)
  assert.deepEqual(Buffer.from(await decrypter.decrypt(ours)), plain)
  await assert.rejects(decryptWithPassphrase('wrong horse', ours), (e) => isFault(e, 'wrong-key'))
})

test('sealStream() and openStream() agree with the whole-buffer forms, however the bytes are cut', async () => {
  for (const size of sizes) {
    const plain = randomBytes(size)
    const fileKey = createFileKey()
    const header = headerFor(fileKey, [identity.recipient])
    for (const piece of [chunkSize - 1, chunkSize + 16, 7919]) {
      const sealed = await collect(sealStream(fileKey, inPieces(plain, piece)))
      assert.deepEqual(decryptWith([identity], Buffer.concat([header, sealed])), plain)
      const opened = await collect(openStream(fileKey, inPieces(sealed, piece)))
      assert.deepEqual(opened, plain)
    }
  }
})

test('openFile() reads a header that arrives byte by byte', async () => {
  const plain = randomBytes(100)
  const opened = await openFile(inPieces(encryptTo([identity.recipient], plain), 1))
  const fileKey = unlock(opened.header, [identity])
  assert.deepEqual(await collect(openStream(fileKey, opened.payload)), plain)
})

test('a stanza that holds no key is kept, covered by the MAC, and skipped by others', async () => {
  const fileKey = createFileKey()
  for (const length of [0, 47, 48, 49, 700]) {
    const extra = { type: 'redoubt-log', args: ['one', 'two'], body: randomBytes(length) }
    const header = headerFor(fileKey, [identity.recipient], [extra])
    const file = Buffer.concat([header, ...sealPayload(fileKey, [Buffer.from('plain')])])
    const decrypter = new oracle.Decrypter()
    decrypter.addIdentity(formatIdentity(identity))
    assert.equal(Buffer.from(await decrypter.decrypt(file)).toString(), 'plain')
    const opened = await openFile(inPieces(file, 50))
    assert.deepEqual(opened.header.stanzas[1], extra)
  }
})

test('every byte of a file, flipped, gives a Fault', async () => {
  const file = encryptTo([identity.recipient], randomBytes(40))
  const secret = await encryptWithPassphrase('p', randomBytes(20), 1)
  assert.ok(file.length > 200 && secret.length > 150)
  for (let at = 0; at < file.length; at++) {
    const bad = Buffer.from(file)
    bad[at] = (bad[at] ?? 0) ^ (1 << (at % 8))
    assert.throws(() => decryptWith([identity], bad), Fault, `byte ${at}`)
  }
  for (let at = 0; at < secret.length; at++) {
    const bad = Buffer.from(secret)
    bad[at] = (bad[at] ?? 0) ^ 1
    await assert.rejects(decryptWithPassphrase('p', bad), Fault, `byte ${at}`)
  }
})

test('every file that is cut short gives a Fault, and so does one that goes on', () => {
  const file = encryptTo([identity.recipient], randomBytes(chunkSize))
  const ends = [...Array(300).keys(), file.length - 17, file.length - 16, file.length - 1]
  for (const end of ends) {
    assert.throws(() => decryptWith([identity], file.subarray(0, end)), Fault, `cut at ${end}`)
  }
  for (const more of [1, 16, 17]) {
    const long = Buffer.concat([file, randomBytes(more)])
    assert.throws(() => decryptWith([identity], long), Fault, `${more} more`)
  }
})

test('chunks that change places or are left out give a Fault', () => {
  const fileKey = createFileKey()
  const [nonce = Buffer.alloc(0), ...parts] = sealPayload(fileKey, [randomBytes(chunkSize * 3)])
  const chunks = [0, 1, 2].map((i) => Buffer.concat(parts.slice(2 * i, 2 * i + 2)))
  const header = headerFor(fileKey, [identity.recipient])
  const file = (order: readonly number[]) =>
    Buffer.concat([header, nonce, ...order.map((i) => chunks[i] ?? Buffer.alloc(0))])
  assert.equal(decryptWith([identity], file([0, 1, 2])).length, chunkSize * 3)
  for (const order of [[1, 0, 2], [0, 2], [0, 1], [0, 1, 2, 2], [2], []]) {
    assert.throws(() => decryptWith([identity], file(order)), Fault, `order ${order.join()}`)
  }
})

test('an identity that a file is not for gives wrong-key', () => {
  const file = encryptTo([identity.recipient], Buffer.from('x'))
  assert.throws(
    () => decryptWith([createIdentity()], file),
    (e) => isFault(e, 'wrong-key'),
  )
})

test('keys read back as they were written, as the npm library makes them, and in no other spelling', async () => {
  const secret = await oracle.generateIdentity()
  const recipient = await oracle.identityToRecipient(secret)
  assert.equal(parseIdentity(secret).recipient.text, recipient)
  assert.equal(formatIdentity(parseIdentity(secret)), secret)
  assert.equal(parseRecipient(recipient).text, recipient)
  for (const bad of [
    recipient.slice(0, -1),
    `${recipient.slice(0, -1)}${recipient.endsWith('q') ? 'p' : 'q'}`,
    `A${recipient.slice(1)}`,
    secret,
    'age1',
    '',
    encodeBech32('age', randomBytes(31)),
  ]) {
    assert.throws(
      () => parseRecipient(bad),
      (e) => isFault(e, 'usage'),
      bad,
    )
  }
  assert.throws(
    () => parseIdentity(secret.slice(0, -1)),
    (error: Error) => {
      return isFault(error, 'usage') && !error.message.includes(secret.slice(20, 30))
    },
  )
})

test('bech32 gives back bytes of any length', () => {
  for (let size = 0; size < 70; size++) {
    const bytes = randomBytes(size)
    assert.deepEqual(decodeBech32(encodeBech32('x', bytes), 'x', 'a test'), bytes)
  }
})
