import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { LoadedChunk } from '#change/copy'
import { settle } from './settle.ts'

/** Marks of chunks 0, 1, …: a run each. */
function marks(...runs: readonly number[]): LoadedChunk[] {
  return runs.map((run, index) => ({ table: 0, index, run, rows: 1n }))
}

const stamps = ['still', 'still', 'earlier', undefined]
const table = { stampOf: (run: number) => stamps[run], stamp: 'still' }
const exact = { kind: 'goes-on', mixed: false }
const mixed = { kind: 'goes-on', mixed: true }
const [fresh, whole, anew] = [{ kind: 'fresh' }, { kind: 'whole' }, { kind: 'anew' }]

test('settle() knows each line of the table in SPEC.md', () => {
  const planned = [0, 1, 2]
  const lines = [
    [undefined, [], true, fresh],
    [planned, [], false, fresh],
    [planned, marks(0, 1, 2), false, whole],
    [[], [], false, whole],
    [planned, marks(0, 1), false, exact],
    [planned, marks(0, 1), true, exact],
    [planned, marks(0, 2), true, mixed],
    [planned, marks(0, 2), false, anew],
    // A run without a stamp: nobody knows whether the source stood still.
    [planned, marks(3), true, mixed],
    [planned, marks(3), false, anew],
  ] as const
  for (const [chunks, there, byKey, expected] of lines) {
    const found = settle({ ...table, planned: chunks, marks: there, byKey })
    assert.deepEqual(found, expected, JSON.stringify([chunks, byKey]))
  }
})

test('a source that tells no stamp never stood still', () => {
  const unknown = { planned: [0, 1], marks: marks(3), stampOf: () => undefined, stamp: undefined }
  assert.deepEqual(settle({ ...unknown, byKey: true }), mixed)
  assert.deepEqual(settle({ ...unknown, byKey: false }), anew)
})

test('marks that no recorded plan has are not believed', () => {
  assert.deepEqual(settle({ ...table, planned: undefined, marks: marks(0), byKey: true }), anew)
  assert.deepEqual(settle({ ...table, planned: [0], marks: marks(0, 0), byKey: true }), anew)
  assert.deepEqual(settle({ ...table, planned: [], marks: marks(0), byKey: true }), anew)
})
