import assert from 'node:assert/strict'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { assertRefusals, type Refusal } from '../support/refusals.ts'
import { Scratch } from '../support/scratch.ts'

const scratch = new Scratch('migrate-input')

before(() => {
  mkdirSync(scratch.join('state'))
  writeFileSync(scratch.join('good'), '# names\nshop = store\n')
  writeFileSync(scratch.join('twice'), 'a = b\na = c\n')
  writeFileSync(scratch.join('parts'), 'a = b.c\n')
  writeFileSync(scratch.join('prose'), 'shop becomes store\n')
})
after(() => scratch[Symbol.dispose]())

const refusals: readonly Refusal[] = [
  ['', 2, /--from <url>' not specified/],
  ['--from mysql://h', 2, /--to <url>' not specified/],
  ["--from '' --to mysql://h", 2, /argument '' is invalid/],
  ['--from u:hidden@h --to mysql://h', 2, /read the URL/],
  ['--from /var/lib --to mysql://h', 2, /read the URL/],
  ['--from redis://h --to mysql://h', 2, /no engine has the scheme 'redis:'/],
  ['--from mysql://a@h:1 --to mysql://b@H:1/', 2, /the target is the same/],
  ['ENDS extra', 2, /too many arguments/],
  ['ENDS --nonsense', 2, /unknown option '--nonsense'/],
  ['ENDS --phases cutover', 5, /'cutover' is not there yet/],
  ['ENDS --phases changes', 2, /'changes' has changes without copy/],
  ['ENDS --phases rows', 2, /'rows' is none of schema, copy, changes/],
  ['ENDS --until soon', 2, /'soon' is not caught-up, never or a time/],
  ["ENDS --until ''", 2, /argument '' is invalid/],
  ['ENDS --until never --phases schema,copy', 2, /--until: --phases schema,copy has no changes/],
  ['ENDS --on-conflict newest', 2, /'newest' is not one of stop, ignore, overwrite/],
  ['ENDS --on-conflict stop --phases copy', 2, /--on-conflict: --phases copy has no changes/],
  ['ENDS --parallel 0', 2, /--parallel: '0'/],
  ['ENDS --parallel 65', 2, /--parallel: '65'/],
  ['ENDS --parallel two', 2, /--parallel: 'two'/],
  ['ENDS --limit fast', 2, /--limit: 'fast' is not a rate/],
  ['ENDS --limit 0rows/s', 2, /--limit: '0rows\/s'/],
  ['ENDS --limit -5MB/s', 2, /--limit: '-5MB\/s'/],
  ['ENDS --chunk 0', 2, /--chunk: '0'/],
  ['ENDS --chunk big', 2, /--chunk: 'big'/],
  ['ENDS --include a.b.c', 2, /--include: 'a\.b\.c' is not a pattern/],
  ['ENDS --include .', 2, /--include: '\.' is not a pattern/],
  ["ENDS --include ''", 2, /argument '' is invalid/],
  ['ENDS --exclude "a', 2, /--exclude: '"a' is not a pattern/],
  ['ENDS --map SCRATCH/none', 1, /read the map file .*none: ENOENT/],
  ['ENDS --map SCRATCH/state', 1, /read the map file .*state: EISDIR/],
  ['ENDS --map SCRATCH/twice', 2, /line 2: a is renamed twice/],
  ['ENDS --map SCRATCH/parts', 2, /line 1: a and b\.c have not as many parts/],
  ['ENDS --map SCRATCH/prose', 2, /line 1: 'shop becomes store' is not old = new/],
  ['ENDS --log-level loud', 2, /--log-level: 'loud'/],
  ['ENDS', 4, /127\.0\.0\.1:1: .*ECONNREFUSED/],
  ['ENDS --map SCRATCH/good --resume', 4, /ECONNREFUSED/],
  ['ENDS --dry-run --state SCRATCH/state', 4, /ECONNREFUSED/],
]

test('bad options are refused with their way out, before a server is asked, and without a secret', async () => {
  await assertRefusals('migrate', refusals, scratch)
  assert.deepEqual(readdirSync(scratch.join('state')), [])
})
