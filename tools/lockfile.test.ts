import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { completeLock, missingOptional, tiedToNode, type Lock } from './lockfile.ts'

test('the lockfile holds all that it names, so that npm ci takes it (npm run lock)', () => {
  const lock = JSON.parse(readFileSync('package-lock.json', 'utf8')) as Lock
  assert.ok(Object.keys(lock.packages).length > 50)
  assert.deepEqual(missingOptional(lock), [])
  assert.deepEqual(tiedToNode(lock), [])
})

test('the lockfile names no registry', () => {
  for (const file of ['package-lock.json', 'test/support/servers/npm/package-lock.json']) {
    assert.doesNotMatch(readFileSync(file, 'utf8'), /"resolved"/, file)
  }
})

test('completeLock() adds the packages of other platforms', () => {
  const lock: Lock = {
    packages: {
      'node_modules/a': {
        dev: true,
        optionalDependencies: { '@a/linux-x64-musl': '1.0.0', '@a/win32-ia32-msvc': '1.0.0' },
      },
    },
  }
  assert.equal(missingOptional(lock).length, 2)
  const { packages } = completeLock(lock)
  const common = { version: '1.0.0', dev: true, optional: true }
  assert.deepEqual(packages['node_modules/@a/linux-x64-musl'], {
    ...common,
    os: ['linux'],
    cpu: ['x64'],
    libc: ['musl'],
  })
  assert.deepEqual(packages['node_modules/@a/win32-ia32-msvc'], {
    ...common,
    os: ['win32'],
    cpu: ['ia32'],
  })
})

test('completeLock() lets an old Node install what the new one runs', () => {
  const binary = { version: '1.0.0', optional: true, os: ['linux'], cpu: ['x64'] }
  const lock: Lock = {
    packages: {
      'node_modules/a': { version: '1.0.0', engines: { node: '>=22' } },
      'node_modules/a-linux-x64': { ...binary, engines: { node: '>=22' } },
    },
  }
  assert.deepEqual(tiedToNode(lock), ['node_modules/a-linux-x64'])
  const { packages } = completeLock(lock)
  assert.deepEqual(packages['node_modules/a-linux-x64'], binary)
  assert.deepEqual(packages['node_modules/a'], lock.packages['node_modules/a'])
})
