import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import type { LogBlock } from '#change'
import { admit, cutBlock, type End, endBehind } from './continuity.ts'

const end: End = { history: 'a', segment: 's2', offset: 100, at: '0200', closed: false }

function block(more: Partial<LogBlock> & { readonly size: number }): LogBlock {
  const { size, ...rest } = more
  return {
    kind: 'block',
    history: 'a',
    segment: 's2',
    offset: 100,
    bytes: Buffer.alloc(size, 1),
    first: '0200',
    next: '0250',
    commits: [],
    closes: false,
    ...rest,
  }
}

/** What `admit` says, in a word or in the numbers of what is new. */
function verdict(of: End | undefined, one: LogBlock, holeAllowed = false): string {
  try {
    const admission = admit(of, one, holeAllowed)
    if (admission.kind === 'known') return 'known'
    const { offset, bytes, first, next, closes } = admission.block
    const marks = `${admission.hole ? ' hole' : ''}${admission.after ? ' after' : ''}`
    return `${offset}+${bytes.length} ${first}-${next}${closes ? ' closes' : ''}${marks}`
  } catch (error) {
    if (!isFault(error)) throw error
    return error.code
  }
}

test('admit() tells what is new of a block', () => {
  const closed = { ...end, closed: true }
  const cases: readonly [string, End | undefined, LogBlock, string][] = [
    ['the first block ever', undefined, block({ size: 50 }), '100+50 0200-0250'],
    ['the next one', end, block({ size: 50 }), '100+50 0200-0250'],
    [
      'one that closes',
      end,
      block({ size: 0, next: '0200', closes: true }),
      '100+0 0200-0200 closes',
    ],
    ['bytes behind the end of a segment', closed, block({ size: 50 }), 'gap'],
    ['a closing word said twice', closed, block({ size: 0, closes: true }), 'known'],
    ['one that leaves bytes out', end, block({ size: 9, offset: 101 }), 'gap'],
    ['the right place, another position', end, block({ size: 9, first: '0201' }), 'gap'],
    ['one that overlaps', end, block({ size: 80, offset: 60 }), '100+40 0200-0250'],
    ['one that is known', end, block({ size: 40, offset: 60, next: '0200' }), 'known'],
    [
      'known bytes, position and all, that close',
      end,
      block({ size: 40, offset: 60, next: '0200', closes: true }),
      '100+0 0200-0200 closes',
    ],
    [
      'known bytes with a position beyond the known one',
      end,
      block({ size: 30, offset: 60, next: '0220' }),
      '100+0 0200-0220',
    ],
    ['known bytes of a closed segment', closed, block({ size: 40, offset: 60 }), 'known'],
    ['the next segment', closed, block({ size: 5, segment: 's3', offset: 0 }), '0+5 0200-0250'],
    [
      'the next segment, the one before left open',
      end,
      block({ size: 5, segment: 's3', offset: 0 }),
      '0+5 0200-0250',
    ],
    [
      'a segment further on',
      closed,
      block({ size: 5, segment: 's4', offset: 0, first: '0300' }),
      'gap',
    ],
    [
      'a segment of before',
      end,
      block({ size: 5, segment: 's1', offset: 0, first: '0100', next: '0190' }),
      'known',
    ],
    [
      'a history that follows',
      end,
      block({ size: 5, history: 'b', segment: 'x', offset: 0 }),
      '0+5 0200-0250 after',
    ],
  ]
  for (const [what, of, one, wanted] of cases) assert.equal(verdict(of, one), wanted, what)
})

test('admit() takes a hole only where one is allowed, and never backwards', () => {
  const further = block({ size: 5, segment: 's9', offset: 0, first: '0900', next: '0950' })
  assert.equal(verdict(end, further), 'gap')
  assert.equal(verdict(end, further, true), '0+5 0900-0950 hole after')
  assert.equal(verdict(end, block({ size: 50 }), true), '100+50 0200-0250')
  const back = block({ size: 5, segment: 's9', offset: 0, first: '0100', next: '0950' })
  assert.equal(verdict(end, back, true), 'source-changed')
})

test('cutBlock() cuts a block into runs that reach its position with the last one only', () => {
  const commits = [{ at: '0250', timeUs: 1n, id: 'x' }]
  const runs = [...cutBlock(block({ size: 25, commits, closes: true }), 10)]
  assert.deepEqual(
    runs.map(({ offset, bytes, first, next, closes }) => [
      offset,
      bytes.length,
      first,
      next,
      closes,
    ]),
    [
      [100, 10, '0200', '0200', false],
      [110, 10, '0200', '0200', false],
      [120, 5, '0200', '0250', true],
    ],
  )
  assert.deepEqual(
    runs.map((run) => run.commits.length),
    [0, 0, 1],
  )
  assert.equal([...cutBlock(block({ size: 0 }), 10)].length, 1)
  const last = runs.at(-1)
  assert.ok(last)
  assert.deepEqual(endBehind(last), { ...end, offset: 125, at: '0250', closed: true })
})
