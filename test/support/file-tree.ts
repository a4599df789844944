import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  closeSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { once } from 'node:events'
import { loadNative } from '#files'

const asRoot = process.geteuid?.() === 0

const oddNames: readonly Buffer[] = [
  'plain',
  'em😀ji',
  'new\nline\ttab\x07',
  'quote"s\'and\\back',
  '<html>&amp;',
  '\u2028\u2029',
  '\x01\x7f\x1b',
  ' lead and trail ',
  '-dash',
  '*',
  '[a]',
  '~',
  'é',
  'e\u0301',
]
  .map((name) => Buffer.from(name))
  .concat(['\xff\xfe', 'caf\xe9', '\xed\xa0\x80'].map((name) => Buffer.from(name, 'latin1')))

/**
 * Makes a tree with every kind of node, names that are no text, times, modes and attributes of all sorts.
 * Devices and foreign owners only for root.
 * `plain` leaves out what restic before 0.16 cannot hold: symlinks that are no text, or have attributes.
 */
export async function makeOddTree(
  root: string,
  options: { readonly plain?: boolean | undefined } = {},
): Promise<void> {
  const native = loadNative()
  const at = (...parts: readonly (string | Buffer)[]) =>
    Buffer.concat(
      [root, ...parts].flatMap((part, i) => [Buffer.from(i ? '/' : ''), Buffer.from(part)]),
    )
  mkdirSync(root, { recursive: true })
  for (const name of oddNames) writeFileSync(at(name), name)
  writeFileSync(at('empty'), '')
  writeFileSync(at('large'), noise(6_000_000, 1))
  writeFileSync(at('twin'), noise(6_000_000, 1))
  writeFileSync(at('sparse'), 'x')
  truncateSync(at('sparse'), 20_000_000)
  linkSync(at('plain'), at('hard'))
  mkdirSync(at('sub'))
  linkSync(at('plain'), at('sub', 'hard too'))
  symlinkSync('plain', at('link'))
  if (!options.plain) symlinkSync(Buffer.from('to nowhere \xff', 'latin1'), at('dangling'))
  symlinkSync('sub', at('link to a directory'))
  mkdirSync(at('closed'))
  writeFileSync(at('closed', 'in'), 'in')
  mkdirSync(at('empty directory'))
  mkdirSync(at(...Array.from({ length: 40 }, (_, depth) => `deep ${depth}`)), { recursive: true })
  for (let i = 0; i < 300; i++) {
    if (i === 0) mkdirSync(at('many'))
    writeFileSync(at('many', `f${i}`), `${i}`)
  }
  native.makeNode(at('fifo'), 0o10640, 0n)
  const server = createServer().listen(`${root}/socket`)
  await once(server, 'listening')
  linkSync(at('socket'), at('socket kept'))
  await new Promise((resolve) => server.close(resolve))
  native.setXattr(at('plain'), { name: 'user.zeta', value: Buffer.from([0, 255, 10]) })
  native.setXattr(at('plain'), { name: 'user.alpha', value: Buffer.alloc(0) })
  native.setXattr(at('sub'), { name: 'user.directory', value: Buffer.alloc(1000, 7) })
  if (asRoot) {
    native.makeNode(at('block'), 0o60600, 0x0701n)
    native.makeNode(at('null'), 0o20666, 0x0103n)
    chownSync(at('empty'), 1, 65534)
    chownSync(at('large'), 4242, 4243)
    if (!options.plain)
      native.setXattr(at('link'), { name: 'trusted.of-link', value: Buffer.from('l') })
  }
  const modes = { empty: 0o4755, large: 0o2750, twin: 0, many: 0o1777, closed: 0o500, sub: 0o2775 }
  for (const [name, mode] of Object.entries(modes)) chmodSync(at(name), mode)
  native.setTimes(at('empty'), 1n, 999_999_999n)
  native.setTimes(at('large'), 0n, -1_500_000_000n)
  native.setTimes(at('link'), 0n, 1_234_567_890_123_456_789n)
  native.setTimes(at('fifo'), 0n, 1_000_000_000_000_000_001n)
  native.setTimes(at('many'), 0n, 4_102_444_800_000_000_000n)
  native.setTimes(at('sub'), 0n, 978_307_200_100_000_000n)
}

/** Bytes that look random and are the same every time. */
export function noise(size: number, seed: number): Buffer {
  const bytes = Buffer.alloc(size)
  let state = seed * 2_654_435_761
  for (let at = 0; at + 4 <= size; at += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0
    bytes.writeInt32LE(state ^ (state >>> 13), at)
  }
  return bytes
}

/** Everything that a restore must bring back, a line a node: to compare two trees by. */
export function describeTree(
  root: string,
  options: { readonly sockets?: boolean | undefined; readonly owners?: boolean | undefined } = {},
): string[] {
  const { sockets = false, owners = true } = options
  const native = loadNative()
  const lines: string[] = []
  const names = new Map<bigint, string>()
  const visit = (directory: Buffer, shown: string) => {
    for (const name of readdirSync(directory, { encoding: 'buffer' }).sort((a, b) =>
      Buffer.compare(a, b),
    )) {
      const path = Buffer.concat([directory, Buffer.from('/'), name])
      const stats = lstatSync(path, { bigint: true })
      if (stats.isSocket() && !sockets) continue
      const label = `${shown}/${name.toString('latin1')}`
      const facts = [
        label,
        stats.mode.toString(8),
        owners ? `${stats.uid}:${stats.gid}` : '',
        stats.mtimeNs,
        stats.isFile() ? stats.size : '',
        stats.isFile() ? digest(path) : '',
        stats.isSymbolicLink() ? readlinkSync(path, 'latin1') : '',
        stats.isBlockDevice() || stats.isCharacterDevice() ? stats.rdev : '',
        native
          .readXattrs(path)
          .map((xattr) => `${xattr.name}=${xattr.value.toString('hex')}`)
          .sort()
          .join(),
      ]
      if (stats.isFile() && stats.nlink > 1n) {
        const first = names.get(stats.ino) ?? label
        names.set(stats.ino, first)
        facts.push(`same as ${first}`)
      }
      lines.push(facts.join(' | '))
      if (stats.isDirectory()) visit(path, label)
    }
  }
  visit(Buffer.from(root), '')
  return lines
}

/** Fails with the first few lines that differ: whole trees fill the screen. */
export function assertSameTree(
  found: readonly string[],
  expected: readonly string[],
  label = 'the tree',
): void {
  const [are, should] = [new Set(found), new Set(expected)]
  const lines = [
    ...expected.filter((line) => !are.has(line)).map((line) => `- ${line}`),
    ...found.filter((line) => !should.has(line)).map((line) => `+ ${line}`),
  ]
  assert.ok(
    found.length === expected.length && lines.length === 0,
    `${label}: ${found.length} nodes instead of ${expected.length}\n${lines.sort().slice(0, 12).join('\n')}`,
  )
}

function digest(path: Buffer): string {
  const hash = createHash('sha256')
  const descriptor = openSync(path, 'r')
  const buffer = Buffer.alloc(1 << 20)
  try {
    for (let size = readSync(descriptor, buffer); size > 0; size = readSync(descriptor, buffer))
      hash.update(buffer.subarray(0, size))
  } finally {
    closeSync(descriptor)
  }
  return hash.digest('hex')
}
