import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { Dice } from '../../../test/support/dice.ts'
import { Restic } from '../../../test/support/servers/restic.ts'
import { openFsStorage } from '../../storage/fs/fs.ts'
import { initRepository } from '../repository/open.ts'
import type { Repository, Snapshot } from '../repository/repository.ts'
import { parseWithin, unlimited, type KeepRules } from './keep.ts'
import { decideForget, forgetJson, parseGroupBy } from './groups.ts'

const signal = new AbortController().signal
const password = 'p'
/** Sets compared in one run; a soak asks for 1000. */
const setsCount = Number(process.env['REDOUBT_SOAK_SETS'] ?? 20)
const zones = ['UTC', 'Europe/Berlin', 'America/St_Johns', 'Pacific/Auckland']

let dir = ''
let repository: Repository
const zoneBefore = process.env['TZ']

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'redoubt-forget-'))
  const storage = await openFsStorage(dir, { create: true })
  // The cheapest password there is: each comparison starts a restic.
  repository = await initRepository(storage, password, {
    signal,
    passwordCost: { n: 2, r: 1, p: 1 },
  })
})

after(async () => {
  if (zoneBefore === undefined) delete process.env['TZ']
  else process.env['TZ'] = zoneBefore
  await repository[Symbol.asyncDispose]()
  await rm(dir, { recursive: true, force: true })
})

const offsets = [
  'Z',
  '+00:00',
  '+01:00',
  '+02:00',
  '-03:30',
  '-02:30',
  '+13:00',
  '+12:00',
  '-11:00',
]

function rollSnapshots(dice: Dice): readonly Omit<Snapshot, 'id'>[] {
  const count = 1 + dice.roll(40)
  // Anything from a burst within hours to a history of years, now and then ahead of the clock.
  const spanMs = 3_600_000 * dice.pick([3, 50, 24 * 30, 24 * 400, 24 * 3000])
  const lastMs =
    Date.now() - dice.pick([0, 1, 1, 1, 400]) * 86_400_000 + dice.pick([0, 0, 0, 3_600_000 * 5])
  const own = dice.pick(offsets)
  return Array.from({ length: count }, () => {
    const offset = dice.roll(4) === 0 ? dice.pick(offsets) : own
    const tags = dice.pick([undefined, undefined, ['a'], ['b', 'a'], ['a', 'b'], ['c c', 'ü']])
    return {
      time: wallTime(lastMs - dice.roll(spanMs), offset, dice.roll(1_000_000)),
      tree: 'ac'.repeat(32),
      paths: dice.pick([['/a'], ['/a'], ['/b', '/a'], ['/a', '/b'], ['/<&>']]),
      hostname: dice.pick(['h1', 'h1', 'h2']),
      username: 'u',
      ...(tags ? { tags } : undefined),
    }
  })
}

/** A time as a clock at that offset writes it; the microseconds keep times apart. */
function wallTime(ms: number, offset: string, us: number): string {
  const sign = offset.startsWith('-') ? -1 : 1
  const minutes = offset === 'Z' ? 0 : Number(offset.slice(1, 3)) * 60 + Number(offset.slice(4))
  const wall = new Date(Math.floor(ms / 1000) * 1000 + sign * minutes * 60_000)
  return `${wall.toISOString().slice(0, 19)}.${String(us).padStart(6, '0')}1${offset}`
}

const countOptions = ['last', 'hourly', 'daily', 'weekly', 'monthly', 'yearly'] as const
const spanOptions = [
  'within',
  'withinHourly',
  'withinDaily',
  'withinWeekly',
  'withinMonthly',
  'withinYearly',
] as const

/** Rules of ours and the same as options of restic. */
function rollRules(dice: Dice): { readonly rules: KeepRules; readonly args: readonly string[] } {
  const rules: { -readonly [field in keyof KeepRules]: KeepRules[field] } = {}
  const args: string[] = []
  while (args.length === 0) {
    for (const field of countOptions) {
      if (dice.roll(3) !== 0) continue
      const count = dice.pick([0, 1, 2, 3, 7, 30, unlimited])
      rules[field] = count
      args.push(`--keep-${field}`, count === unlimited ? 'unlimited' : String(count))
    }
    for (const field of spanOptions) {
      if (dice.roll(6) !== 0) continue
      const span = dice.pick(['1h', '36h', '1d', '10d', '1m', '13m', '1y2m3d4h', '2y', '1m1d'])
      rules[field] = parseWithin(field, span)
      args.push(
        `--${field.replace('within', 'keep-within').replace(/[A-Z]/, (c) => `-${c.toLowerCase()}`)}`,
        span,
      )
    }
    if (dice.roll(4) === 0) {
      const tags = dice.pick(['a', 'a,b', 'b, a', 'c c,ü', '', 'x'])
      rules.tags = [tags.split(',').map((tag) => tag.trim())]
      args.push('--keep-tag', tags)
    }
  }
  return { rules, args }
}

async function replaceSnapshots(wanted: readonly Omit<Snapshot, 'id'>[]): Promise<void> {
  for (const { id } of await repository.listFiles('snapshots', { signal })) {
    await repository.removeSnapshot(id, { signal })
  }
  const times = new Set<string>()
  for (const snapshot of wanted) {
    if (times.has(snapshot.time.slice(0, 27))) continue
    times.add(snapshot.time.slice(0, 27))
    await repository.saveSnapshot(snapshot, { signal })
  }
}

function byKey(groups: unknown): unknown {
  assert.ok(Array.isArray(groups))
  const key = (group: unknown) =>
    JSON.stringify(['host', 'paths', 'tags'].map((name) => Reflect.get(Object(group), name)))
  return groups.toSorted((a, b) => (key(a) < key(b) ? -1 : 1))
}

test(`forgetting equals stock restic on ${setsCount} seeded random sets of snapshots`, async () => {
  let groupsSeen = 0
  let removed = 0
  for (let seed = 1; seed <= setsCount; seed++) {
    const dice = new Dice(seed)
    const zone = dice.pick(zones)
    process.env['TZ'] = zone
    await replaceSnapshots(rollSnapshots(dice))
    const { rules, args } = rollRules(dice)
    const groupText = dice.pick(['host,paths', '', 'tags', 'host,paths,tags', 'paths'])
    const groupBy = parseGroupBy(groupText)

    const groups = decideForget(await repository.snapshots({ signal }), rules, {
      nowMs: Date.now(),
      groupBy,
    })
    const restic = new Restic({ repository: dir, password, env: { TZ: zone } })
    const command = ['forget', '--dry-run', '--no-lock', '-g', groupText, ...args]
    const said = `seed ${seed}, TZ=${zone}, restic ${command.join(' ')}`
    const emptied = groups.some((group) => group.keep.length === 0)
    const { stdout } = await restic.run([...command, '--json'], { codes: emptied ? [1] : [0] })
    if (emptied) continue
    const theirs: unknown = JSON.parse(stdout.toString())
    const ours: unknown = JSON.parse(JSON.stringify(forgetJson(groups, groupBy)))
    assert.deepEqual(byKey(ours), byKey(theirs), said)
    groupsSeen += groups.length
    removed += groups.reduce((sum, group) => sum + group.remove.length, 0)
  }
  assert.ok(
    groupsSeen > setsCount / 2 && removed > setsCount,
    `${groupsSeen} groups, ${removed} removed`,
  )
})
