import { Fault } from '#base/faults'
import { createProgress } from '#base/progress'
import type { Verified } from '#service/verify'
import { formatSpan, table } from './display.ts'
import { readMapFile } from './map-file.ts'
import { surroundings } from './surroundings.ts'
import { exitFindings, type Input, type Verb } from './verb.ts'

const defaultRecheckMs = 10_000
const defaultNamed = 20
const namedMax = 10_000
const repairs = ['plan', 'apply'] as const

type Done = Verified & { readonly tookMs: number }

export const verifyVerb: Verb = {
  name: 'verify',
  summary: 'compare two live databases, and repair what differs',
  options: [
    {
      flags: '--from <url>',
      help: 'the side that is right: postgres://…, mysql://…, mariadb://…',
      required: true,
    },
    {
      flags: '--to <url>',
      help: 'the side that is compared with it, of the same family',
      required: true,
    },
    {
      flags: '--include <pattern>',
      help: 'only these: database.table, on PostgreSQL schema.table, with *',
      many: true,
    },
    { flags: '--exclude <pattern>', help: 'not these', many: true },
    {
      flags: '--map <file>',
      help: 'other names on the target: a line shop.orders = store.sales each',
    },
    {
      flags: '--mode <mode>',
      help: 'schema (objects only), full, or sample=P% of the rows by chance (default: full)',
    },
    { flags: '--seed <text>', help: 'chooses the same sample again; each run prints its own' },
    {
      flags: '--parallel <n>',
      help: 'chunks that are compared at a time (default: as many as cores, at most 4)',
    },
    { flags: '--limit <rate>', help: 'how many rows are read on each side: 100000rows/s' },
    {
      flags: '--recheck <span>',
      help: 'how long a difference is looked at again before it counts (default: 10s)',
    },
    {
      flags: '--repair <how>',
      help: 'plan: print the statements that make the target equal; apply: run them',
      choices: repairs,
    },
    { flags: '--show <n>', help: 'rows that are named of each table (default: 20)' },
  ],
  examples: [
    [
      'redoubt verify --from mysql://app@old --to mysql://app@new',
      'is every row there, and the same?',
    ],
    [
      'redoubt verify --from postgres://app@old/shop --to postgres://app@new/shop --mode sample=1%',
      'a quick look, by chance',
    ],
    [
      'redoubt verify --from mysql://old --to mysql://new --include shop.orders --repair plan',
      'what would make it equal?',
    ],
  ],
  async run(input, context) {
    const settings = await readSettings(input)
    const { verifyData } = await import('#service/verify')
    const { formatName } = await import('#service/migrate')
    const progress = createProgress('read the objects of both sides')
    const startedMs = performance.now()
    const { display } = context
    const verified = await (async () => {
      using _bar = display.follow(progress)
      return await verifyData({ ...settings, progress }, surroundings(context))
    })()
    const tookMs = Math.round(performance.now() - startedMs)
    display.result({ ...verified, tookMs }, (done) => render(done, formatName))
    return verified.equal ? 0 : exitFindings
  },
}

async function readSettings(input: Input) {
  const file = input.text('map')
  const seed = input.text('seed')
  if (seed !== undefined && seed.length > 100) {
    throw new Fault('usage', 'read --seed: it has more than 100 characters')
  }
  return {
    from: input.required('from'),
    to: input.required('to'),
    include: input.list('include'),
    exclude: input.list('exclude'),
    map: file === undefined ? '' : await readMapFile(file),
    mode: input.text('mode'),
    seed,
    limit: input.text('limit'),
    parallel: input.sessionsOfSide(),
    recheckMs: input.durationMs('recheck') ?? defaultRecheckMs,
    repair: input.choice('repair', repairs),
    namedMax: input.count('show', namedMax) ?? defaultNamed,
  }
}

type FormatName = (name: readonly string[]) => string

function render(done: Done, formatName: FormatName): string {
  const { tables, structure, findings, repair } = done
  const lines = [
    ...structure.map(({ kind, object, said }) => `✗ ${kind}: ${object}: ${said}`),
    ...tables.flatMap((one) => renderTable(one, formatName)),
    ...findings.map(({ said }) => `! ${said}`),
    ...(repair?.kind === 'plan' ? renderPlan(repair) : []),
    summary(done),
  ]
  if (tables.length === 0) return lines.join('\n')
  const rows = tables.map((one) => [
    `  ${formatName(one.name)}`,
    `${one.sourceRows} rows`,
    one.sourceRows === one.targetRows ? '' : `${one.targetRows} on the target`,
    verdict(one),
  ])
  return [table(rows), ...lines].join('\n')
}

type Table = Done['tables'][number]

function verdict({ missing, extra, different, more, changing, repaired }: Table): string {
  const parts = [
    ...(missing > 0 ? [`${missing} missing`] : []),
    ...(extra > 0 ? [`${extra} extra`] : []),
    ...(different > 0 ? [`${different} different`] : []),
    ...(more ? ['and more'] : []),
    ...(changing > 0 ? [`${changing} kept changing`] : []),
    ...(repaired > 0 ? [`${repaired} repaired`] : []),
  ]
  return parts.length === 0 ? 'equal' : parts.join(', ')
}

function renderTable(one: Table, formatName: FormatName): string[] {
  const name = formatName(one.name)
  const rows = one.rows.map(({ kind, rows: count, key, columns }) => {
    const where = Object.entries(key).map(([column, value]) => `${column} = ${value ?? 'NULL'}`)
    const many = count > 1 ? `, ${count} times` : ''
    const what = columns.length > 0 ? `: ${columns.join(', ')}` : ''
    return `✗ ${kind}: ${name} where ${where.join(', ')}${many}${what}`
  })
  return [...rows, ...one.unrepaired.map((said) => `! ${name}: not repaired: ${said}`)]
}

function renderPlan({ statements, more }: NonNullable<Done['repair']>): string[] {
  const lines = statements.map((sql) => `${sql};`)
  return more ? [...lines, '-- and more: run it again when these are done'] : lines
}

function summary({ equal, mode, objects, structure, tables, seed, tookMs }: Done): string {
  const rows = tables.reduce((sum, one) => sum + one.sourceRows, 0n)
  const found = tables.reduce((sum, one) => sum + one.missing + one.extra + one.different, 0)
  const repaired = tables.reduce((sum, one) => sum + one.repaired, 0)
  const compared =
    mode === 'schema'
      ? `${objects} objects`
      : `${objects} objects, ${rows} rows of ${tables.length} tables`
  const chance = seed === undefined ? '' : ` (a sample, --seed ${seed})`
  const differs = [
    ...(structure.length > 0 ? [`${structure.length} objects differ`] : []),
    ...(found > 0 ? [`${found} rows differ`] : []),
    ...(repaired > 0 ? [`${repaired} were repaired`] : []),
  ]
  const said = [...(equal ? ['equal'] : []), ...differs].join(', ') || 'not proven equal'
  return `compared ${compared}${chance} in ${formatSpan(tookMs)}: ${said}`
}
