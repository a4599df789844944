import assert from 'node:assert/strict'
import { test } from 'node:test'
import { withoutSecrets } from './urls.ts'

test('withoutSecrets() takes the password out of every form of URL', () => {
  const cases: readonly [string, string][] = [
    ['postgres://u:secret@h:1/d', 'postgres://u@h:1/d'],
    ['postgres://u:secret@a:1,b:2/d?x=y', 'postgres://u@a:1,b:2/d?x=y'],
    ['postgres://u:sec@ret@h/d', 'postgres://u@h/d'],
    ['mysql://u:s:e:c@[::1]:3306/', 'mysql://u@[::1]:3306/'],
    ['postgres://:secret@h/d', 'postgres://h/d'],
    ['postgres://u@h/d', 'postgres://u@h/d'],
    ['s3://bucket/a@b:c', 's3://bucket/a@b:c'],
    ['/a/path', '/a/path'],
  ]
  for (const [url, shown] of cases) assert.equal(withoutSecrets(url), shown)
})
