import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { fromPostgres } from './faults.ts'

test('fromPostgres() tells a broken pipe from an error of the server', () => {
  const epipe = Object.assign(new Error('write EPIPE'), { code: 'EPIPE', syscall: 'write' })
  assert.ok(isFault(fromPostgres(epipe, 'read'), 'unreachable'))
  const denied = Object.assign(new Error('no password'), { code: '28P01' })
  assert.ok(isFault(fromPostgres(denied, 'connect'), 'denied'))
  const unknown = Object.assign(new Error('division by zero'), { code: '22012' })
  assert.ok(isFault(fromPostgres(unknown, 'query'), 'engine'))
})

test('fromPostgres() says of what another session was in the way of that it may be tried again', () => {
  for (const code of ['40P01', '40001', '55P03', '25P03', '57P01']) {
    const fault = fromPostgres(Object.assign(new Error('x'), { code }), 'apply changes')
    assert.ok(isFault(fault) && fault.recovery === 'retry', code)
  }
})
