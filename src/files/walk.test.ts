import assert from 'node:assert/strict'
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import type { TreeEntry, TreeEvent } from '#change/tree'
import { Scratch } from '../../test/support/scratch.ts'
import { loadNative } from './native.ts'
import { scan } from './scan.ts'
import { EventReader, EventWriter } from './walk-codec.ts'
import { createWalk } from './walk.ts'
import { compileRules } from './walk-rules.ts'

const { signal } = new AbortController()

function makeTree(scratch: Scratch): void {
  for (const directory of ['a/b', 'c', 'empty'])
    mkdirSync(scratch.join(directory), { recursive: true })
  for (const file of ['a/1', 'a/b/2', 'a/b-', 'c/3', 'top']) writeFileSync(scratch.join(file), file)
  symlinkSync('top', scratch.join('link'))
}

function shape(event: TreeEvent): string {
  switch (event.kind) {
    case 'enter':
      return `${event.entry.name.toString()}(`
    case 'node':
      return event.entry.name.toString()
    case 'leave':
      return ')'
    case 'trouble':
      return `! ${event.error.message}`
    default:
      return event satisfies never
  }
}

test('a walk goes depth first, names in the order of their bytes', async () => {
  using scratch = new Scratch('walk')
  makeTree(scratch)
  const events: string[] = []
  const walk = createWalk({ paths: ['.'], root: scratch.path })
  for await (const event of walk.walk({ signal })) events.push(shape(event))
  assert.equal(events.join(' '), 'a( 1 b( 2 ) b- ) c( 3 ) empty( ) link top')
})

test('the thread hands over what the scan found, to the last field', async () => {
  using scratch = new Scratch('walk')
  makeTree(scratch)
  loadNative().setXattr(Buffer.from(scratch.join('top')), {
    name: 'user.x',
    value: Buffer.from([0, 255]),
  })
  const rules = { paths: ['a', '.', 'gone'], root: scratch.path }
  const direct = Array.from(scan(compileRules(rules), loadNative()))
  const walked: TreeEvent[] = []
  for await (const event of createWalk(rules).walk({ signal })) walked.push(event)
  assert.ok(direct.length > 14, `${direct.length} events`)
  assert.deepEqual(walked, direct)
})

test('events survive their way as bytes', () => {
  const entry = (more: object): TreeEntry =>
    ({
      name: Buffer.from([0xff, 0x0a]),
      mode: 0o7777,
      mtimeNs: -1n,
      atimeNs: 2n ** 62n,
      ctimeNs: 0n,
      uid: 4_294_967_295,
      gid: 0,
      user: 'üser',
      group: undefined,
      inode: 2n ** 64n - 1n,
      device: 2n ** 63n,
      links: 3,
      xattrs: [{ name: 'user.ä', value: Buffer.alloc(70_000, 1) }],
      ...more,
    }) as unknown as TreeEntry
  const path = Buffer.from('/p/\xff', 'latin1')
  const file = entry({ kind: 'file', sizeBytes: 2n ** 53n + 1n })
  const events: TreeEvent[] = [
    { kind: 'enter', path, entry: entry({ kind: 'dir' }) },
    { kind: 'node', path, entry: file, content: { kind: 'path', path, holes: undefined } },
    {
      kind: 'node',
      path,
      entry: file,
      content: {
        kind: 'path',
        path,
        holes: [
          { start: 0, end: 2 ** 45 },
          { start: 2 ** 46, end: 2 ** 47 },
        ],
      },
    },
    { kind: 'node', path, entry: entry({ kind: 'symlink', target: path }) },
    { kind: 'node', path, entry: entry({ kind: 'dev', rdev: 2n ** 40n }) },
    { kind: 'node', path, entry: entry({ kind: 'chardev', rdev: 0n }) },
    { kind: 'node', path, entry: entry({ kind: 'fifo', xattrs: [] }) },
    { kind: 'node', path, entry: entry({ kind: 'socket', xattrs: [], uid: 1, user: undefined }) },
    { kind: 'leave' },
    { kind: 'trouble', path, error: new Error('plain') },
  ]
  const [writer, reader] = [new EventWriter(), new EventReader()]
  const found: TreeEvent[] = []
  for (const event of events) {
    writer.add(event)
    if (writer.count === 4) found.push(...reader.read(writer.take()))
  }
  found.push(...reader.read(writer.take()))
  assert.deepEqual(found, events)
})

test('a walk that is given up ends, and so does one that is aborted', async () => {
  using scratch = new Scratch('walk')
  for (let i = 0; i < 30; i++) {
    mkdirSync(scratch.join(`d${i}`))
    for (let j = 0; j < 200; j++) writeFileSync(scratch.join(`d${i}/f${j}`), '')
  }
  let count = 0
  for await (const _event of createWalk({ paths: [scratch.path] }).walk({ signal })) {
    count += 1
    if (count === 40) break
  }
  const abort = new AbortController()
  const walk = createWalk({ paths: [scratch.path] }).walk({ signal: abort.signal })
  await assert.rejects(async () => {
    for await (const _event of walk) abort.abort(new Error('enough'))
  }, /enough/)
})

test('nothing to walk is missing, a bad rule is refused at once', async () => {
  using scratch = new Scratch('walk')
  const walk = createWalk({ paths: [scratch.join('nowhere')] }).walk({ signal })
  await assert.rejects(
    async () => {
      for await (const _event of walk) assert.fail('an event')
    },
    (error) => isFault(error, 'missing') && error.message.includes('nowhere'),
  )
  assert.throws(() => createWalk({ paths: ['.'], excludes: ['['] }), /malformed/)
  assert.throws(() => createWalk({ paths: ['.'], excludeIfPresent: ['a/b'] }), /names no file/)
  assert.throws(
    () => createWalk({ paths: ['.'], excludeFiles: [scratch.join('none')] }),
    (error) => isFault(error, 'missing'),
  )
})

test('a path below one that cannot be entered is told, and the others are walked', async () => {
  using scratch = new Scratch('walk')
  makeTree(scratch)
  const events: string[] = []
  const paths = ['top', 'top/below', 'gone', 'gone/below', 'c']
  for await (const event of createWalk({ paths, root: scratch.path }).walk({ signal }))
    events.push(event.kind === 'trouble' ? '!' : shape(event))
  assert.equal(events.join(' '), 'c( 3 ) ! top')
})

test('what vanishes during the walk is passed over', () => {
  using scratch = new Scratch('walk')
  makeTree(scratch)
  const events: string[] = []
  for (const event of scan(compileRules({ paths: ['.'], root: scratch.path }), loadNative())) {
    events.push(shape(event))
    if (event.kind === 'enter' && event.entry.name.toString() === 'a')
      for (const gone of ['a/b', 'c', 'top']) rmSync(scratch.join(gone), { recursive: true })
  }
  assert.equal(events.join(' '), 'a( 1 b- ) empty( ) link')
})
