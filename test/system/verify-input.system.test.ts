import { mkdirSync, writeFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { assertRefusals, type Refusal } from '../support/refusals.ts'
import { Scratch } from '../support/scratch.ts'

const scratch = new Scratch('verify-input')

before(() => {
  mkdirSync(scratch.join('folder'))
  writeFileSync(scratch.join('good'), '# names\nshop = store\n')
  writeFileSync(scratch.join('twice'), 'a = b\na = c\n')
})
after(() => scratch[Symbol.dispose]())

const refusals: readonly Refusal[] = [
  ['', 2, /--from <url>' not specified/],
  ['--from mysql://h', 2, /--to <url>' not specified/],
  ["--from '' --to mysql://h", 2, /argument '' is invalid/],
  ['--from u:hidden@h --to mysql://h', 2, /read the URL/],
  ['--from redis://h --to mysql://h', 2, /no engine has the scheme 'redis:'/],
  ['--from mysql://a@h:1 --to mysql://b@H:1/', 2, /the target is the same/],
  ['ENDS extra', 2, /too many arguments/],
  ['ENDS --nonsense', 2, /unknown option '--nonsense'/],
  ['ENDS --mode rows', 2, /--mode: 'rows' is not schema, full or sample=P%/],
  ['ENDS --mode sample', 2, /--mode: 'sample' is not/],
  ['ENDS --mode sample=5', 2, /--mode: 'sample=5' is not/],
  ['ENDS --mode sample=0%', 2, /'sample=0%' is not above 0%/],
  ['ENDS --mode sample=101%', 2, /'sample=101%' is not above 0% and at most 100%/],
  ['ENDS --mode sample=-1%', 2, /'sample=-1%' is not schema/],
  ["ENDS --mode ''", 2, /argument '' is invalid/],
  ['ENDS --seed x', 2, /--seed: the mode full chooses nothing by chance/],
  [`ENDS --mode sample=1% --seed ${'x'.repeat(101)}`, 2, /--seed: it has more than 100 char/],
  ['ENDS --parallel 0', 2, /--parallel: '0'/],
  ['ENDS --parallel 65', 2, /--parallel: '65'/],
  ['ENDS --limit fast', 2, /--limit: 'fast' is not a rate/],
  ['ENDS --limit 5MB/s', 2, /--limit: '5MB\/s' is not a number of rows/],
  ['ENDS --recheck soon', 2, /--recheck: 'soon' is not a duration/],
  ['ENDS --recheck 0s', 2, /--recheck: '0s' is not a duration/],
  ['ENDS --repair now', 2, /'now'/],
  ['ENDS --repair plan --mode schema', 2, /--repair: the mode schema compares no rows/],
  ['ENDS --show 0', 2, /--show: '0'/],
  ['ENDS --show 10001', 2, /--show: '10001'/],
  ['ENDS --include a.b.c', 2, /--include: 'a\.b\.c' is not a pattern/],
  ['ENDS --exclude "a', 2, /--exclude: '"a' is not a pattern/],
  ['ENDS --map SCRATCH/none', 1, /read the map file .*none: ENOENT/],
  ['ENDS --map SCRATCH/folder', 1, /read the map file .*folder: EISDIR/],
  ['ENDS --map SCRATCH/twice', 2, /line 2: a is renamed twice/],
  ['ENDS', 4, /127\.0\.0\.1:1: .*ECONNREFUSED/],
  ['ENDS --map SCRATCH/good --mode sample=0.05% --seed x --repair plan', 4, /ECONNREFUSED/],
]

test('bad options are refused with their way out, before a server is asked, and without a secret', async () => {
  await assertRefusals('verify', refusals, scratch)
})
