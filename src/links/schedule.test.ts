import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Chunk } from '#change/copy'
import { CopySchedule, type Job, type ScheduledTable } from './schedule.ts'

const smallBytes = 100

function chunks(table: number, count: number): Chunk[] {
  return Array.from({ length: count }, (_, index) => ({ table, index, sizeBytes: 10, range: '' }))
}

function table(
  index: number,
  sizeBytes: number,
  more: Partial<ScheduledTable> = {},
): ScheduledTable {
  return { index, sizeBytes, chunks: undefined, made: false, ...more }
}

/** Ends a job as a worker does; a table has a chunk for each 100 bytes. */
function end(schedule: CopySchedule, job: Job, sizes: readonly number[]): void {
  if (job.kind === 'load') schedule.loaded(job.chunk)
  else if (job.kind === 'make') schedule.made()
  else {
    const count = (index: number) => Math.max(1, Math.ceil((sizes[index] ?? 0) / 100))
    schedule.planned(job.tables.map((index) => ({ index, chunks: chunks(index, count(index)) })))
  }
}

function say(job: Job): string {
  if (job.kind === 'plan') return `plan ${job.tables.join(' ')}`
  return job.kind === 'make' ? `make ${job.table}` : `load ${job.chunk.table}.${job.chunk.index}`
}

test('big tables come first, small ones are planned together, indexes come before more rows', () => {
  const sizes = [50, 300, 20, 200]
  const schedule = new CopySchedule(
    sizes.map((size, index) => table(index, size)),
    { smallBytes },
  )
  const done: string[] = []
  for (let job = schedule.take(); job; job = schedule.take()) {
    done.push(say(job))
    end(schedule, job, sizes)
  }
  assert.deepEqual(done, [
    'plan 1',
    'plan 3',
    'load 1.0',
    'load 1.1',
    'load 1.2',
    'make 1',
    'load 3.0',
    'load 3.1',
    'make 3',
    'plan 0 2',
    'load 0.0',
    'make 0',
    'load 2.0',
    'make 2',
  ])
  assert.equal(schedule.over, true)
})

test('a table is made only when its last chunk is loaded, whoever loads it', () => {
  const schedule = new CopySchedule([table(0, 500, { chunks: chunks(0, 2) })], { smallBytes })
  const first = schedule.take()
  const second = schedule.take()
  assert.ok(first?.kind === 'load' && second?.kind === 'load')
  assert.equal(schedule.loaded(second.chunk), false)
  assert.equal(schedule.take(), undefined)
  assert.equal(schedule.over, false)
  assert.equal(schedule.loaded(first.chunk), true)
  assert.deepEqual(schedule.take(), { kind: 'make', table: 0 })
  assert.equal(schedule.over, false)
  schedule.made()
  assert.equal(schedule.over, true)
})

test('a table whose rows are there is only made, and one that is made is left', () => {
  const whole = table(0, 10, { chunks: [] })
  const done = table(1, 10, { chunks: [], made: true })
  const schedule = new CopySchedule([whole, done], { smallBytes })
  assert.deepEqual(schedule.take(), { kind: 'make', table: 0 })
  assert.equal(schedule.take(), undefined)
  schedule.made()
  assert.equal(schedule.over, true)
})

test('twenty thousand small tables are planned in few jobs', () => {
  const count = 20_000
  const tables = Array.from({ length: count }, (_, index) => table(index, 10))
  const schedule = new CopySchedule(tables, { smallBytes })
  let plans = 0
  let loads = 0
  for (let job = schedule.take(); job; job = schedule.take()) {
    if (job.kind === 'plan') plans += 1
    if (job.kind === 'load') loads += 1
    end(schedule, job, [])
  }
  assert.equal(loads, count)
  assert.ok(plans < count / 50, `${plans}`)
})
