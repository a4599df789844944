import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { anyPatterns, compilePatterns, patternText } from './patterns.ts'

test('matches() finds a pattern at any component, with all that is below', () => {
  const cases: readonly (readonly [pattern: string, path: string, expected: boolean])[] = [
    ['*.c', '/a/b.c', true],
    ['*.c', '/a/b.c/below', true],
    ['*.c', '/a/b.cc', false],
    ['/a', '/ab', false],
    ['/a', '/a/b', true],
    ['/a', '/b/a', false],
    ['b/c', '/a/b/c/d', true],
    ['b/c', '/a/b/x/c', false],
    ['b/c', '/ab/c', false],
    ['foo/**', '/foo', true],
    ['/a/**/z', '/a/z', true],
    ['/a/**/z', '/a/b/c/z/x', true],
    ['/a/**/z', '/b/a/z', false],
    ['**/x', '/q/x', true],
    ['a**b', '/axxb', true],
    ['a**b', '/a/b', false],
    ['[a-c]x', '/bx', true],
    ['[a-c]x', '/dx', false],
    ['[^a-c]x', '/bx', false],
    ['[^a-c]x', '/dx', true],
    ['[\\]\\-]', '/]', true],
    ['[z-a]', '/m', false],
    ['a?c', '/a😀c', true],
    ['a?c', '/ac', false],
    ['a*c', '/a/c', false],
    ['\\*', '/*', true],
    ['\\*', '/x', false],
    ['x.y', '/xzy', false],
    ['/a/../b/', '/b', true],
    ['./a//b', '/x/a/b', true],
    ['/', '/a', true],
    ['line\nend', '/line\nend', true],
    ['*', '/line\nend', true],
  ]
  for (const [pattern, path, expected] of cases)
    assert.equal(compilePatterns([pattern]).matches(path), expected, `${pattern} on ${path}`)
})

test('a later pattern with ! takes back what earlier ones matched', () => {
  const patterns = compilePatterns(['*.log', '!keep.log', 'keep.log.old', '*/deep/*'])
  assert.equal(patterns.matches('/a.log'), true)
  assert.equal(patterns.matches('/keep.log'), false)
  assert.equal(patterns.matches('/x/deep/keep.log'), true)
})

test('mayMatchBelow() says which directories lead to a match', () => {
  const cases: readonly (readonly [pattern: string, path: string, expected: boolean])[] = [
    ['/a/b/c', '/', true],
    ['/a/b/c', '/a', true],
    ['/a/b/c', '/b', false],
    ['/a/b/c', '/a/b', true],
    ['/a/b/c', '/a/x', false],
    ['/a/b/c', '/a/b/c/d', true],
    ['x', '/anything/at/all', true],
    ['/a/**/z', '/a/q/r', true],
    ['/a/**/z', '/b/q/r', false],
    ['/a*/x', '/abc', true],
  ]
  for (const [pattern, path, expected] of cases)
    assert.equal(compilePatterns([pattern]).mayMatchBelow(path), expected, `${pattern} on ${path}`)
})

test('case counts unless told otherwise, and sets of patterns add up', () => {
  const both = anyPatterns([
    compilePatterns(['*.Log']),
    compilePatterns(['ÄB*'], { insensitive: true }),
  ])
  assert.equal(both.count, 2)
  assert.equal(both.matches('/x.Log'), true)
  assert.equal(both.matches('/x.log'), false)
  assert.equal(both.matches('/äbc'), true)
  assert.equal(anyPatterns([]).matches('/x'), false)
})

test('a malformed pattern is refused and named', () => {
  for (const pattern of ['', '!', 'a[', '[]', '[a-', 'a\\', '[-a]', '[a'])
    assert.throws(
      () => compilePatterns([pattern]),
      (error) => isFault(error, 'usage') && error.message.includes(JSON.stringify(pattern)),
      pattern,
    )
})

test('patternText() keeps names apart that are no text', () => {
  const text = (bytes: readonly number[]) => patternText(Buffer.from(bytes))
  assert.notEqual(text([0x61, 0xff]), text([0x61, 0xfe]))
  assert.equal(compilePatterns(['a?']).matches(`/${text([0x61, 0xff])}`), true)
  assert.equal(compilePatterns(['a??']).matches(`/${text([0x61, 0xff, 0xc3])}`), true)
  assert.equal(compilePatterns(['é*']).matches(`/${text([0xc3, 0xa9, 0xff])}`), true)
})
