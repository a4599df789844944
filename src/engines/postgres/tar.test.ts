import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { type TarEntry, TarReader } from './tar.ts'

type Member = { entry: Partial<TarEntry> & { path: string }; content?: Buffer; type?: string }

function header(member: Member): Buffer {
  const { entry, content = Buffer.alloc(0), type } = member
  const block = Buffer.alloc(512)
  const octal = (at: number, size: number, value: number) =>
    block.write(value.toString(8).padStart(size - 1, '0'), at, 'latin1')
  block.write(entry.path, 0, 'utf8')
  octal(100, 8, entry.mode ?? 0o600)
  octal(108, 8, entry.uid ?? 0)
  octal(116, 8, entry.gid ?? 0)
  octal(124, 12, content.length)
  octal(136, 12, entry.mtimeSeconds ?? 0)
  block.write(type ?? '0', 156, 'latin1')
  block.write(entry.link ?? '', 157, 'utf8')
  return withSum(block)
}

function withSum(block: Buffer): Buffer {
  block.fill(0x20, 148, 156)
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return block
}

function archive(members: readonly Member[]): Buffer {
  const parts = members.flatMap((member) => {
    const content = member.content ?? Buffer.alloc(0)
    return [header(member), content, Buffer.alloc((512 - (content.length % 512)) % 512)]
  })
  return Buffer.concat([...parts, Buffer.alloc(1024)])
}

/** `passes`: content is taken past the reader where it may be, as a base does. */
function read(bytes: Buffer, piece: number, passes = false) {
  const reader = new TarReader('a test')
  const found: { entry: TarEntry; content: string; ended: boolean }[] = []
  for (let at = 0; at < bytes.length; at += piece) {
    const part = bytes.subarray(at, at + piece)
    const open = found.at(-1)
    if (passes && open && reader.pass(part.length)) {
      open.content += part.toString()
      continue
    }
    for (const event of reader.feed(part)) {
      const last = found.at(-1)
      if (event.kind === 'entry') found.push({ entry: event.entry, content: '', ended: false })
      else if (event.kind === 'bytes' && last) last.content += event.bytes.toString()
      else if (last) last.ended = true
    }
  }
  reader.finish()
  return found
}

const members: readonly Member[] = [
  { entry: { path: 'base/', mode: 0o700 }, type: '5' },
  {
    entry: { path: './base/1', uid: 70, gid: 71, mtimeSeconds: 1_700_000_000 },
    content: Buffer.alloc(1300, 'x'),
  },
  { entry: { path: 'empty' } },
  { entry: { path: 'link', link: '/where/to' }, type: '2' },
  { entry: { path: 'an empty pax record' }, type: 'x' },
  { entry: { path: 'exact' }, content: Buffer.alloc(512, 'y') },
]

test('TarReader reads an archive the same however it is cut', () => {
  const bytes = archive(members)
  const whole = read(bytes, bytes.length)
  assert.deepEqual(
    whole.map(({ entry, content, ended }) => [entry.path, entry.kind, content.length, ended]),
    [
      ['base', 'dir', 0, true],
      ['base/1', 'file', 1300, true],
      ['empty', 'file', 0, true],
      ['link', 'symlink', 0, true],
      ['exact', 'file', 512, true],
    ],
  )
  assert.deepEqual(whole[1]?.entry, {
    path: 'base/1',
    kind: 'file',
    mode: 0o600,
    uid: 70,
    gid: 71,
    mtimeSeconds: 1_700_000_000,
    sizeBytes: 1300,
    link: '',
  })
  for (const piece of [1, 7, 511, 513]) {
    assert.deepEqual(read(bytes, piece), whole)
    assert.deepEqual(read(bytes, piece, true), whole)
  }
})

test('TarReader takes long names from pax records', () => {
  const text = 'path=odd/🛒 name\n'
  const size = Buffer.byteLength(text) + 3
  const content = Buffer.from(`${size} ${text}`)
  const bytes = archive([
    { entry: { path: 'pax' }, content, type: 'x' },
    { entry: { path: 'short' }, content: Buffer.from('abc') },
  ])
  assert.deepEqual(
    read(bytes, 100).map(({ entry, content: found }) => [entry.path, found]),
    [['odd/🛒 name', 'abc']],
  )
})

test('TarReader reads sizes in base 256', () => {
  const block = header({ entry: { path: 'big' } })
  block.fill(0, 124, 136)
  block[124] = 0x80
  block.writeUInt32BE(2, 128)
  block.writeUInt32BE(5, 132)
  const [event] = [...new TarReader('a test').feed(withSum(block))]
  assert.equal(event?.kind === 'entry' && event.entry.sizeBytes, 2 * 2 ** 32 + 5)
})

test('TarReader refuses what is cut off, broken or leads out of the archive', () => {
  const good = archive(members.slice(1, 2))
  assert.throws(
    () => read(good.subarray(0, 1000), 100),
    (error) => isFault(error, 'protocol'),
  )
  const bad: readonly Buffer[] = [
    archive([{ entry: { path: '../etc/passwd' } }]),
    archive([{ entry: { path: '/etc/passwd' } }]),
    archive([{ entry: { path: 'device' }, type: '3' }]),
    Buffer.concat([good, header({ entry: { path: 'behind the end' } })]),
  ]
  for (const bytes of bad)
    assert.throws(
      () => read(bytes, 512),
      (error) => isFault(error, 'protocol'),
    )
  for (const at of [0, 99, 124, 148, 156, 300]) {
    const flipped = Buffer.from(good)
    flipped[at] = (flipped[at] ?? 0) ^ 0x01
    assert.throws(
      () => read(flipped, 512),
      (error) => isFault(error, 'protocol'),
      `byte ${at}`,
    )
  }
})
