import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { renderPages } from './pages.ts'

test('rendered pages are what the tables in the code say (npm run render)', () => {
  for (const { file, text } of renderPages()) {
    assert.equal(readFileSync(file, 'utf8'), text, file)
  }
})
