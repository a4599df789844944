import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { LogReader, LogSegment } from '#change'
import { endLogAt } from './ended-log.ts'

test('endLogAt() does not ask for what follows the end', async () => {
  const segment = (first: string, next: string): LogSegment => ({
    history: 'a',
    segment: `seg-${first}`,
    first: first,
    next,
    sizeBytes: 1,
    complete: true,
  })
  const log: LogReader = {
    async *segments() {
      yield segment('01', '02')
      yield segment('02', '03')
      throw new Error('the log has a hole')
    },
    read: () => Promise.resolve(undefined),
  }
  const { signal } = new AbortController()
  const names: string[] = []
  const ended = endLogAt(log, { history: 'a', at: '03' })
  for await (const one of ended.segments({ history: 'a', at: '01' }, { signal })) {
    names.push(one.segment)
  }
  assert.deepEqual(names, ['seg-01', 'seg-02'])
})
