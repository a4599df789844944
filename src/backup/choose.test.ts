import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import type { Target } from '#change'
import type { BaseRecord, LogSpan } from '#vault'
import { chooseBase } from './choose.ts'

const second = 1_000_000n

function base(name: string, atSeconds: number): BaseRecord {
  const at = String(atSeconds).padStart(4, '0')
  return {
    source: 'shop',
    name,
    snapshot: 'f'.repeat(64),
    first: { history: 'a', at },
    consistent: { history: 'a', at },
    consistentUs: BigInt(atSeconds) * second,
    facts: {},
    recordedMs: 0,
  }
}

function span(first: number, next: number): LogSpan {
  return {
    source: 'shop',
    history: 'a',
    continues: false,
    first: String(first).padStart(4, '0'),
    next: String(next).padStart(4, '0'),
    lastCommitUs: BigInt(next) * second,
    completeUs: BigInt(next + 5) * second,
    bytes: 1,
    objects: 1,
  }
}

const bases = [base('monday', 100), base('tuesday', 200), base('friday', 500)]
const spans = [span(90, 300), span(450, 900)]
const at = (seconds: number): Target => ({ kind: 'time', timeUs: BigInt(seconds) * second })
const choose = (target: Target) => chooseBase({ source: 'shop', bases, spans, target })

test('chooseBase() takes the newest base before the moment', () => {
  assert.equal(choose(at(150)).base.name, 'monday')
  assert.equal(choose(at(200)).base.name, 'tuesday')
  assert.equal(choose(at(299)).base.name, 'tuesday')
  assert.equal(choose(at(899)).base.name, 'friday')
  assert.equal(choose({ kind: 'latest' }).base.name, 'friday')
})

test('chooseBase() tells of log behind a hole that the latest does not reach', () => {
  const beyond = { history: 'a', at: '0900' }
  const latest = { source: 'shop', spans, target: { kind: 'latest' } } as const
  assert.deepEqual(chooseBase({ ...latest, bases: bases.slice(0, 2) }).beyond, beyond)
  assert.equal(choose({ kind: 'latest' }).beyond, undefined)
  assert.equal(chooseBase({ ...latest, bases, spans: [] }).beyond, undefined)
})

test('chooseBase() asks for the whole log when no commit is later than the moment', () => {
  assert.deepEqual(choose(at(903)).target, { kind: 'latest' })
  assert.deepEqual(choose(at(890)).target, at(890))
})

test('chooseBase() lets no restore into a window before a gap look for log behind it', () => {
  const end = { history: 'a', at: '0300' }
  assert.deepEqual(choose(at(250)).end, end)
  assert.deepEqual(choose(at(304)).target, { kind: 'latest' })
  assert.deepEqual(choose(at(304)).end, end)
  assert.equal(choose(at(899)).end, undefined)
})

test('chooseBase() refuses moments before, between and after the windows, and names the edges', () => {
  const refusals: readonly [Target, string, RegExp][] = [
    [at(50), 'refused', /oldest moment .* 1970-01-01T00:01:40/],
    [at(400), 'gap', /lies in a gap/],
    [at(1000), 'refused', /newest moment .* 1970-01-01T00:15:05/],
  ]
  for (const [target, code, message] of refusals) {
    assert.throws(
      () => choose(target),
      (error) => isFault(error) && error.code === code && message.test(error.message),
    )
  }
})

test('chooseBase() takes a position of the same text from the history that has it', () => {
  const [monday] = bases
  const sunday: BaseRecord = {
    ...base('sunday', 20),
    first: { history: 'a.5f', at: '0020' },
    consistent: { history: 'a.5f', at: '0020' },
    consistentUs: 2000n * second,
  }
  const anew = { ...span(10, 150), history: 'a.5f', lastCommitUs: 3000n * second }
  const choice = (position: string) =>
    chooseBase({
      source: 'shop',
      bases: [...(monday ? [monday] : []), sunday],
      spans: [span(90, 300), anew],
      target: { kind: 'position', at: position },
    }).base.name
  assert.equal(choice('0149'), 'sunday')
  assert.equal(choice('0250'), 'monday')
})

test('chooseBase() finds positions, and refuses those that nothing reaches', () => {
  assert.equal(choose({ kind: 'position', at: '0250' }).base.name, 'tuesday')
  assert.equal(choose({ kind: 'position', at: '0500' }).base.name, 'friday')
  assert.throws(() => choose({ kind: 'position', at: '0400' }), /no base and log reach/)
})

test('chooseBase() restores a base by its name, as it was', () => {
  const { base: chosen, target } = choose({ kind: 'name', name: 'monday' })
  assert.equal(chosen.name, 'monday')
  assert.deepEqual(target, { kind: 'position', at: '0100' })
})

test('chooseBase() starts at the earliest base of the newest window for a transaction or a named point', () => {
  assert.equal(choose({ kind: 'commit', id: '0-1-77' }).base.name, 'friday')
  assert.equal(choose({ kind: 'name', name: 'before-deploy' }).base.name, 'friday')
})

test('chooseBase() says so when there is no base at all', () => {
  assert.throws(
    () => chooseBase({ source: 'shop', bases: [], spans, target: { kind: 'latest' } }),
    /holds no base/,
  )
})
