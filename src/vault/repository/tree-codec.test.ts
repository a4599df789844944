import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Fault } from '#base/faults'
import { encodeTree, TreeBuilder, type TreeNode } from './tree-codec.ts'
import { decodeTree } from './tree-decoder.ts'

const id = 'ab'.repeat(32)
const other = 'cd'.repeat(32)

const attributes = {
  mode: 0o644,
  mtimeNs: 1_500_000_000_123_456_789n,
  atimeNs: 1_500_000_000_123_456_789n,
  ctimeNs: 1_500_000_001_000_000_000n,
  uid: 0,
  gid: 1000,
  user: 'root',
  inode: 2n ** 60n + 1n,
  device: 65024n,
  links: 1,
  xattrs: [],
}

const nodes: readonly TreeNode[] = [
  {
    ...attributes,
    name: Buffer.from('a<b'),
    kind: 'file',
    sizeBytes: 2n ** 55n + 3n,
    content: [id, other],
    xattrs: [{ name: 'user.ü', value: Buffer.from([1, 255]) }],
  },
  { ...attributes, name: Buffer.from('b'), kind: 'chardev', rdev: 259n },
  { ...attributes, name: Buffer.from('d'), kind: 'dir', mode: 0o1777, subtree: id },
  { ...attributes, name: Buffer.from('e'), kind: 'file', sizeBytes: 0n, content: [] },
  { ...attributes, name: Buffer.from('f'), kind: 'fifo', error: 'could "not"' },
  { ...attributes, name: Buffer.from('l'), kind: 'symlink', target: Buffer.from([0x74, 0xff]) },
  {
    ...attributes,
    name: Buffer.from('w'),
    kind: 'file',
    sizeBytes: 0n,
    content: [],
    genericAttributes: { 'windows.file_attributes': 32, 'windows.a': { x: '<' } },
  },
]

test('encodeTree() writes the fields in their order and leaves out what is empty', () => {
  const file: TreeNode = {
    name: Buffer.from('n'),
    kind: 'file',
    mode: 0o4755,
    mtimeNs: 0n,
    atimeNs: 1n,
    ctimeNs: 2n,
    uid: 1,
    gid: 2,
    inode: 0n,
    device: 0n,
    links: 0,
    xattrs: [],
    sizeBytes: 0n,
    content: [],
  }
  assert.equal(
    encodeTree([file]).toString(),
    '{"nodes":[{"name":"n","type":"file","mode":8389101,"mtime":"1970-01-01T00:00:00Z",' +
      '"atime":"1970-01-01T00:00:00.000000001Z","ctime":"1970-01-01T00:00:00.000000002Z",' +
      '"uid":1,"gid":2,"content":[]}]}\n',
  )
  assert.equal(encodeTree([]).toString(), '{"nodes":[]}\n')
})

test('decodeTree() gives the nodes that encodeTree() was given', () => {
  const decoded = [...decodeTree(encodeTree(nodes), 'tree')]
  // The count of links of a directory or a FIFO is not kept.
  assert.deepEqual(
    decoded,
    nodes.map((node) =>
      node.kind === 'fifo' || node.kind === 'dir' ? { ...node, links: 0 } : node,
    ),
  )
  assert.deepEqual(encodeTree(decoded), encodeTree(nodes))
})

test('decodeTree() yields any names and numbers unchanged, in slices of a large tree', () => {
  const names = fc.uniqueArray(
    fc
      .uint8Array({ minLength: 1, maxLength: 300 })
      .filter((name) => !/[/\0]|^\.\.?$/.test(Buffer.from(name).toString('latin1'))),
    { minLength: 300, maxLength: 600, selector: (name) => Buffer.from(name).toString('hex') },
  )
  fc.assert(
    fc.property(names, fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (list, inode) => {
      const made = list
        .map((name) => Buffer.from(name))
        .sort((a, b) => Buffer.compare(a, b))
        .map(
          (name): TreeNode => ({ ...attributes, name, inode, kind: 'dir', links: 0, subtree: id }),
        )
      assert.deepEqual([...decodeTree(encodeTree(made), 'tree')], made)
    }),
    { seed: 2, numRuns: 20 },
  )
})

test('TreeBuilder refuses a node out of order, twice, or with a name that is no component', () => {
  const node = (name: string): TreeNode => ({
    ...attributes,
    name: Buffer.from(name),
    kind: 'fifo',
  })
  const builder = new TreeBuilder()
  builder.add(node('b'))
  for (const name of ['a', 'b', '', '.', '..', 'x/y', 'x\0']) {
    assert.throws(() => builder.add(node(name)), /invariant/, name)
  }
  assert.equal(builder.count, 1)
})

test('TreeBuilder makes huge trees of the same text as small ones', () => {
  const node = (at: number): TreeNode => ({
    ...attributes,
    name: Buffer.from(`${String(at).padStart(6, '0')}${'x'.repeat(240)}`),
    kind: 'fifo',
  })
  const count = 24_000
  const builder = new TreeBuilder()
  for (let at = 0; at < count; at++) builder.add(node(at))
  const blob = builder.done().toString()
  assert.ok(blob.length > 10 * 2 ** 20, `${blob.length} bytes`)
  const part = (at: number) =>
    encodeTree([node(at)])
      .toString()
      .slice('{"nodes":['.length, -3)
  const parts = blob.slice('{"nodes":['.length, -3).split(/(?<=\}),(?=\{"name")/)
  assert.equal(parts.length, count)
  for (const [at, text] of parts.entries()) assert.equal(text, part(at))
})

test('decodeTree() reads fields of later versions past', () => {
  const [node] = decodeTree(
    Buffer.from(
      `{"later":[{"name":1}],"nodes":[{"name":"a","type":"dir","mtime":"2017-07-14T02:40:00Z","atime":"2017-07-14T02:40:00Z","ctime":"2017-07-14T02:40:00Z","uid":0,"gid":0,"content":null,"subtree":"${id}","new":{"a":[1]}}],"more":1}\n`,
    ),
    'tree',
  )
  assert.equal(node?.name.toString(), 'a')
})

const valid = {
  name: 'a',
  type: 'file',
  mtime: '2017-07-14T02:40:00Z',
  atime: '2017-07-14T02:40:00Z',
  ctime: '2017-07-14T02:40:00Z',
  uid: 0,
  gid: 0,
  content: [id],
}

const wrong: readonly (readonly [string, unknown])[] = [
  ['name', ''],
  ['name', '..'],
  ['name', 'a/b'],
  ['name', '\\x00'],
  ['name', '\\q'],
  ['name', 7],
  ['type', 'irregular'],
  ['type', 'toString'],
  ['mode', -1],
  ['mode', 1.5],
  ['mode', 2 ** 32],
  ['mtime', 'yesterday'],
  ['ctime', null],
  ['uid', '0'],
  ['size', -1],
  ['size', 2e19],
  ['user', 3],
  ['content', null],
  ['content', ['ab']],
  ['content', [id.toUpperCase()]],
  ['extended_attributes', [{ name: 'a', value: '%' }]],
  ['extended_attributes', {}],
  ['generic_attributes', []],
]

function assertCorrupt(work: () => unknown, what: string): void {
  assert.throws(work, (error) => error instanceof Fault && error.code === 'corrupt', what)
}

test('decodeTree() refuses every field that is not what it should be', () => {
  const tree = (node: unknown) => Buffer.from(JSON.stringify({ nodes: [node] }))
  assert.equal([...decodeTree(tree(valid), 'tree')].length, 1)
  for (const [field, value] of wrong) {
    const what = `${field} ${JSON.stringify(value)}`
    assertCorrupt(() => [...decodeTree(tree({ ...valid, [field]: value }), 'tree')], what)
  }
  assertCorrupt(() => [...decodeTree(tree({ ...valid, type: 'dir' }), 'tree')], 'no subtree')
})

test('decodeTree() refuses nodes out of order and nodes twice', () => {
  for (const names of [
    ['b', 'a'],
    ['a', 'a'],
  ]) {
    const list = { nodes: names.map((name) => ({ ...valid, name })) }
    assertCorrupt(() => [...decodeTree(Buffer.from(JSON.stringify(list)), 'tree')], String(names))
  }
})

test('decodeTree() of a tree cut short or with a changed byte yields nodes or a corrupt Fault', () => {
  const bytes = encodeTree(nodes)
  for (let end = 0; end < bytes.length - 1; end++) {
    assertCorrupt(() => [...decodeTree(bytes.subarray(0, end), 'tree')], `cut at ${end}`)
  }
  let seed = 7
  for (let round = 0; round < 5000; round++) {
    seed = (seed * 1103515245 + 12345) % 2 ** 31
    const changed = Buffer.from(bytes)
    changed[seed % bytes.length] = (seed >>> 8) & 255
    try {
      for (const node of decodeTree(changed, 'tree')) assert.ok(node.name.length > 0)
    } catch (error) {
      assert.ok(error instanceof Fault && error.code === 'corrupt', String(error))
    }
  }
})
