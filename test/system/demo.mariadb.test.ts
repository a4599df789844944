import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { home, service, servicesFolder } from '../support/servers/services.ts'
import { Scratch } from '../support/scratch.ts'

test('redoubt demo --once loses two databases and gets every row back', async () => {
  await service('mariadb10')
  using scratch = new Scratch('demo-test')
  const temporary = scratch.join('tmp')
  mkdirSync(temporary)
  const played = spawnSync(path.join(home, 'redoubt'), ['demo', '--once'], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env,
      TMPDIR: temporary,
      REDOUBT_SERVICES: servicesFolder,
      LANG: 'C.UTF-8',
      LC_ALL: 'C.UTF-8',
    },
  })
  const said = `${played.stdout}\n${played.stderr}`
  assert.equal(played.status, 0, said)
  assert.match(played.stdout, /PostgreSQL is gone, after \d+ commits/)
  assert.match(played.stdout, /MariaDB is gone, after \d+ commits/)
  assert.equal(played.stdout.match(/\d+ rows of \d+ transactions, all equal/g)?.length, 4, said)
  assert.match(played.stdout, /PostgreSQL +RPO (0|\d+ ms) .*RTO \d/)
  assert.match(played.stdout, /Every comparison held/)
  assert.doesNotMatch(said, /mariadb:\/\/redoubt:[^…]/, 'no password is shown')
  assert.deepEqual(readdirSync(temporary), [], 'nothing is left behind')
})
