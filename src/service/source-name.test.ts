import assert from 'node:assert/strict'
import { test } from 'node:test'
import { defaultSourceName } from './source-name.ts'

test('defaultSourceName() takes host and port, the first of several, and never a secret', () => {
  const cases: readonly [string, string][] = [
    ['postgres://u:secret@db.example:5433/shop', 'db.example-5433'],
    ['postgres://u:secret@a:1,b:2/d', 'a-1'],
    ['postgres://u:secret@:5432/d?host=/run/postgresql', '5432'],
    ['postgres://u:secret@/d?host=/run/postgresql', 'postgres'],
    ['mysql://h', 'h'],
    ['mysql://[::1]:3306/', '1-3306'],
  ]
  for (const [url, name] of cases) assert.equal(defaultSourceName(url), name, url)
  assert.throws(
    () => defaultSourceName('u:secret@h'),
    (error) =>
      error instanceof Error && /not a URL/.test(error.message) && !/secret/.test(error.message),
  )
})
