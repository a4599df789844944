import assert from 'node:assert/strict'
import { test } from 'node:test'
import { canonicalJson } from './json-value.ts'

const equal: readonly (readonly [string, string])[] = [
  ['{"a": 1, "b": [true, null]}', '{"b":[true,null],"a":1}'],
  ['{"a":1,"a":2}', '{"a":2}'],
  ['1.0', '1'],
  ['1e2', '100'],
  ['-0', '0'],
  ['"\\u00e4"', '"ä"'],
  ['18446744073709551615', ' 18446744073709551615 '],
]
const unequal: readonly (readonly [string, string])[] = [
  ['{"a":1}', '{"a":"1"}'],
  ['[1,2]', '[2,1]'],
  ['18446744073709551615', '18446744073709551614'],
  ['9007199254740993', '9007199254740992'],
  ['null', '""'],
  ['{}', '[]'],
  ['0.1', '0.10000000000000002'],
]

test('JSON that is spelled in other ways is one value, and what differs is not', () => {
  for (const [a, b] of equal) assert.equal(canonicalJson(a), canonicalJson(b), `${a} ${b}`)
  for (const [a, b] of unequal) assert.notEqual(canonicalJson(a), canonicalJson(b), `${a} ${b}`)
})

test('what is no JSON has no value', () => {
  for (const text of ['', '{', '{a:1}', "'x'", '1 2']) assert.equal(canonicalJson(text), undefined)
})
