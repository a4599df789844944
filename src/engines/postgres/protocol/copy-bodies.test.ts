import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CopyBodies } from './copy-bodies.ts'

function message(body: string): Buffer {
  const head = Buffer.from('d0000')
  head.writeInt32BE(body.length + 4, 1)
  return Buffer.concat([head, Buffer.from(body)])
}

/** All that was read, data joined where nothing stands between. */
function readAll(reader: CopyBodies, runs: readonly Buffer[]): string[] {
  const said: string[] = []
  for (const part of runs.flatMap((run) => reader.read(run))) {
    const isData = part.kind === 'data'
    const text = isData ? Buffer.concat(part.pieces).toString() : part.body.toString()
    const last = said.at(-1)
    if (isData && last?.startsWith('data ')) said[said.length - 1] = last + text
    else said.push(isData ? `data ${text}` : `word ${text}`)
  }
  return said
}

test('CopyBodies reads tagged and plain bodies the same wherever the runs are cut', () => {
  const bodies = ['nbase.tar\0/x\0', 'dsome', 'd', 'dbytes', 'p12345678', 'dmore', 'm', 'dmanifest']
  const bytes = Buffer.concat(bodies.map(message))
  const tagged = [
    'word nbase.tar\0/x\0',
    'data somebytes',
    'word p12345678',
    'data more',
    'word m',
    'data manifest',
  ]
  const plain = [`data ${bodies.join('')}`]
  const heads = bodies.map((_, index) => Buffer.concat(bodies.slice(0, index).map(message)).length)
  for (let cut = 0; cut <= bytes.length; cut += 1) {
    // A run never ends within a head.
    if (heads.some((at) => cut > at && cut < at + 5)) continue
    const runs = [bytes.subarray(0, cut), bytes.subarray(cut)]
    assert.deepEqual(readAll(new CopyBodies(true), runs), tagged, `cut at ${cut}`)
    assert.deepEqual(readAll(new CopyBodies(false), runs), plain, `cut at ${cut}`)
  }
})

test('CopyBodies refuses an empty body that should bear a tag, and long ones that are no data', () => {
  assert.throws(() => new CopyBodies(true).read(message('')), { code: 'protocol' })
  assert.deepEqual(readAll(new CopyBodies(false), [message(''), message('a')]), ['data a'])
  assert.throws(() => new CopyBodies(true).read(message(`n${'x'.repeat(70_000)}`)), {
    code: 'protocol',
  })
})
