import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { codes, Fault, fromSystem, isFault } from './faults.ts'

test('a Fault takes recovery and exit code from the table, unless told otherwise', () => {
  const fault = new Fault('unreachable', 'reach db: refused', { hint: 'start it' })
  assert.equal(fault.recovery, 'retry')
  assert.equal(fault.exitCode, 4)
  assert.equal(new Fault('unreachable', 'x', { recovery: 'stop' }).recovery, 'stop')
})

test('fromSystem() classifies errors of the operating system, and leaves others as they are', async () => {
  const missing = await readFile('/nonexistent/file').catch((e: unknown) =>
    fromSystem(e, 'read it'),
  )
  assert.ok(isFault(missing, 'missing'))
  assert.match(missing.message, /^read it: ENOENT$/)
  const defect = new TypeError('x')
  assert.equal(fromSystem(defect, 'read'), defect)
  const fault = new Fault('full', 'x')
  assert.equal(fromSystem(fault, 'read'), fault)
})

test('every code has a meaning that ends in a full stop', () => {
  for (const [code, facts] of Object.entries(codes))
    assert.match(facts.meaning, /^[A-Z].*\.$/, code)
})
