import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  decideForget,
  forgetJson,
  formatGroup,
  groupSnapshots,
  parseGroupBy,
  sortText,
} from './groups.ts'

const snapshot = (
  id: string,
  hostname: string,
  paths: readonly string[],
  tags?: readonly string[],
) => ({
  id,
  time: `2026-11-0${id}T00:00:00Z`,
  hostname,
  paths,
  ...(tags ? { tags } : undefined),
})

const snapshots = [
  snapshot('1', 'a', ['/x', '/y'], ['t', 's']),
  snapshot('2', 'a', ['/y', '/x'], ['s', 't']),
  snapshot('3', 'b', ['/x']),
]

test('groupSnapshots() divides by host, paths and tags, whatever the order of the latter', () => {
  const ids = (text: string) =>
    groupSnapshots(snapshots, parseGroupBy(text)).map((group) =>
      group.snapshots.map(({ id }) => id),
    )
  assert.deepEqual(ids('host,paths'), [['1', '2'], ['3']])
  assert.deepEqual(ids(''), [['1', '2', '3']])
  assert.deepEqual(
    ids('tags'),
    [['3'], ['1', '2']].sort((a, b) => b.length - a.length),
  )
  assert.deepEqual(ids('hosts,path,tag'), [['1', '2'], ['3']])
  assert.throws(() => parseGroupBy('host,size'), { code: 'usage' })
})

test('formatGroup() names a group for people', () => {
  const [group] = groupSnapshots(snapshots, parseGroupBy('host,paths'))
  assert.equal(group && formatGroup(group), 'host a, paths /x, /y')
  assert.equal(formatGroup({}), 'all snapshots')
})

test('sortText() sorts by the bytes of UTF-8', () => {
  assert.deepEqual(sortText(['\u{1f600}', '\uff00', 'a']), ['a', '\uff00', '\u{1f600}'])
})

test('forgetJson() tells a decision in the form of restic', () => {
  const groupBy = parseGroupBy('host')
  const options = { nowMs: Date.UTC(2026, 11, 1), local: () => 0, groupBy }
  const [first] = forgetJson(decideForget(snapshots, { last: 1 }, options), groupBy)
  const shown = (id: string, tags: readonly string[]) => ({
    time: `2026-11-0${id}T00:00:00Z`,
    hostname: 'a',
    paths: ['/x', '/y'],
    tags,
    id,
    short_id: id,
  })
  assert.deepEqual(first, {
    tags: null,
    host: 'a',
    paths: null,
    keep: [shown('2', ['s', 't'])],
    remove: [shown('1', ['t', 's'])],
    reasons: [{ snapshot: shown('2', ['s', 't']), matches: ['last snapshot'] }],
  })
})
