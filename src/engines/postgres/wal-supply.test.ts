import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import type { LogReader } from '#change'
import { Scratch } from '../../../test/support/scratch.ts'
import { WalSupply } from './wal-supply.ts'

const { signal } = new AbortController()
const segmentBytes = 1 << 20
const name = '000000010000000000000001'
const history = '7000000000000000001-00000001'
const at = '0000000000100000'

/** A log of one segment that is longer each time that it is read: its archiver still runs. */
function growing(): LogReader {
  let length = 8192
  return {
    async *segments() {
      const size = { sizeBytes: length, complete: false }
      yield { history, segment: name, first: at, next: at, ...size }
    },
    async read() {
      const bytes = Buffer.alloc(length)
      // Behind what was there at first: no zeroes.
      bytes.fill(0xee, 8192)
      length += 100
      return (async function* () {
        yield bytes
      })()
    },
  } as Pick<LogReader, 'segments' | 'read'> as LogReader
}

test('a file that is asked for again is as it lay ready, though the log has grown since', async () => {
  using scratch = new Scratch('supply')
  const supply = new WalSupply({
    archive: growing(),
    first: { history, at },
    consistent: { history, at },
    target: { kind: 'latest' },
    path: { first: 1, last: 1, leftAt: new Map() },
    segmentBytes,
    folder: scratch.join('ready'),
    owner: undefined,
    all: false,
    signal,
  })
  // Asked for before it lies ready, and once more after.
  const early = supply.find(name)
  await supply.run()
  const laid = readFileSync(scratch.join('ready', name))
  assert.equal(laid.length, segmentBytes)
  for (const served of [await early, await supply.find(name)]) {
    assert.ok(served)
    const content = Buffer.concat(await Array.fromAsync(served.content))
    assert.ok(content.equals(laid))
  }
})
