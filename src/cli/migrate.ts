import { formatSizeBytes } from '#base/bytes'
import { createProgress } from '#base/progress'
import type { Migrated, MigrateSettings, Preview } from '#service/migrate'
import { formatSpan, table } from './display.ts'
import { readMapFile } from './map-file.ts'
import { surroundings } from './surroundings.ts'
import { type Context, exitFindings, type Input, type Verb } from './verb.ts'

const newsMs = 1000
const policies = ['stop', 'ignore', 'overwrite'] as const

type Meter = Parameters<NonNullable<MigrateSettings['onMeter']>>[0]
type Finding = Preview['findings'][number]
type Done = Migrated & { readonly stateDirectory: string; readonly tookMs: number }

export const migrateVerb: Verb = {
  name: 'migrate',
  summary: 'bring schema, rows and changes of a live database to another server',
  options: [
    {
      flags: '--from <url>',
      help: 'the source: postgres://…, mysql://…, mariadb://…',
      required: true,
    },
    { flags: '--to <url>', help: 'the target, of the same family', required: true },
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
      flags: '--phases <list>',
      help: 'schema, copy, changes, with commas between (default: schema,copy; with --until also changes)',
    },
    {
      flags: '--until <end>',
      help: 'carry changes after the copy, until caught-up, never, or a time: before the first commit stamped later',
    },
    {
      flags: '--on-conflict <policy>',
      help: 'a change does not find the row as the source had it: stop, ignore it, or overwrite (default: stop)',
      choices: policies,
    },
    {
      flags: '--parallel <n>',
      help: 'sessions on each side (default: as many as cores, at most 4)',
    },
    {
      flags: '--chunk <size>',
      help: 'how much of a table one transaction brings, and is done again after a kill (default: 64MiB)',
    },
    { flags: '--limit <rate>', help: 'how fast rows are read: 50MB/s or 100000rows/s' },
    { flags: '--accounts', help: 'users, roles and grants too' },
    {
      flags: '--convert',
      help: 'what the target does not have (a collation, an engine, a type) becomes the nearest that it has',
    },
    {
      flags: '--state <dir>',
      help: 'where it notes how far it is (default: below ~/.redoubt/migrate)',
    },
    { flags: '--resume', help: 'go on with the one that was interrupted' },
    { flags: '-n, --dry-run', help: 'show what would be made and every finding; write nothing' },
  ],
  examples: [
    ['redoubt migrate --from mysql://app@old --to mysql://app@new', 'all databases of a server'],
    [
      "redoubt migrate --from postgres://app@old/shop --to postgres://app@new/shop --exclude 'public.log_*'",
      'one database, without some tables',
    ],
    ['redoubt migrate --from mysql://old --to mysql://new --dry-run', 'what stands in the way?'],
    ['redoubt migrate --from mysql://old --to mysql://new --resume', 'after an interruption'],
    [
      'redoubt migrate --from mysql://old --to mysql://new --until never',
      'and keep the target in step until it is stopped',
    ],
    [
      'redoubt migrate --from mysql://old --to mysql://new --resume --until caught-up',
      'end that when the last change is there',
    ],
  ],
  async run(input, context) {
    const settings = await readSettings(input)
    const { formatName } = await import('#service/migrate')
    const { display } = context
    const { done, preview } = await follow(settings, context)
    if (settings.dryRun) {
      display.result(preview, () => renderPreview(preview, formatName))
      return exitOf(preview.findings)
    }
    display.entry({ kind: 'result', ...done }, () => render(done, formatName))
    return exitOf(done.findings)
  },
}

/** Migrates, and tells meanwhile how far it is. */
async function follow(
  settings: Awaited<ReturnType<typeof readSettings>>,
  context: Context,
): Promise<{ readonly done: Done; readonly preview: Preview }> {
  const { migrateData } = await import('#service/migrate')
  const { display } = context
  const progress = createProgress('look at both ends')
  const startedMs = performance.now()
  let preview: Preview = { findings: [], objects: [], tables: [] }
  let said = ''
  let meter: Meter | undefined
  const newest = () => ({ said, ...progress, changes: meter?.flow })
  using _news = display.json ? tellNews(context, newest) : display.follow(progress)
  const migrated = await migrateData(
    {
      ...settings,
      progress,
      onPreview: (found) => {
        preview = found
        if (!settings.dryRun) tellFindings(context, found.findings)
      },
      onSaid: (now) => {
        said = now
        if (!display.json) context.log.info(now)
      },
      onMeter: (counts) => {
        meter = counts
      },
    },
    surroundings(context),
  )
  return { done: { ...migrated, tookMs: Math.round(performance.now() - startedMs) }, preview }
}

const exitRefused = 5

function exitOf(findings: readonly Finding[]): number {
  if (findings.some(({ severity }) => severity === 'blocks')) return exitRefused
  return findings.some(({ severity }) => severity === 'warns') ? exitFindings : 0
}

async function readSettings(input: Input) {
  const file = input.text('map')
  return {
    from: input.required('from'),
    to: input.required('to'),
    asked: {
      include: orUndefined(input.list('include')),
      exclude: orUndefined(input.list('exclude')),
      map: file === undefined ? undefined : await readMapFile(file),
      accounts: input.flag('accounts') || undefined,
      convert: input.flag('convert') || undefined,
    },
    phases: input.text('phases'),
    until: input.text('until'),
    conflicts: input.choice('on-conflict', policies),
    limit: input.text('limit'),
    chunkBytes: input.sizeBytes('chunk'),
    parallel: input.sessionsOfSide(),
    stateDirectory: input.text('state'),
    resume: input.flag('resume'),
    dryRun: input.flag('dry-run'),
  }
}

function orUndefined(list: readonly string[]): readonly string[] | undefined {
  return list.length === 0 ? undefined : list
}

/** A line of JSON a second: how far it is. */
function tellNews(context: Context, newest: () => object): Disposable {
  const startedMs = performance.now()
  const timer = setInterval(() => {
    const elapsedMs = Math.round(performance.now() - startedMs)
    const news = { kind: 'news', ...newest(), elapsedMs }
    context.display.entry(news, () => '')
  }, newsMs)
  timer.unref()
  return { [Symbol.dispose]: () => clearInterval(timer) }
}

/** What is found is no progress: `--quiet` does not hide it. */
function tellFindings({ display }: Context, findings: readonly Finding[]): void {
  if (findings.length === 0) return
  if (display.json) display.entry({ kind: 'findings', findings }, () => '')
  else process.stderr.write(`${findings.flatMap(renderFinding).join('\n')}\n`)
}

const marks: Readonly<Record<Finding['severity'], string>> = {
  blocks: '✗',
  warns: '!',
  notes: '·',
}

function renderFinding({ severity, said, mend }: Finding): string[] {
  const line = `${marks[severity]} ${said}`
  return mend ? [line, `    ${mend.replaceAll('\n', '\n    ')}`] : [line]
}

type FormatName = (name: readonly string[]) => string

function renderPreview({ objects, tables, findings }: Preview, formatName: FormatName): string {
  const rows = tables.map(({ name, target, rowsEstimate, sizeBytes }) => [
    `  ${formatName(name)}`,
    formatName(name) === formatName(target) ? '' : `-> ${formatName(target)}`,
    `about ${Math.max(0, Math.round(rowsEstimate))} rows`,
    formatSizeBytes(Math.max(0, Math.round(sizeBytes))),
  ])
  const statements = objects.flatMap((object) => [
    `-- ${object.id} (${object.stage})`,
    ...object.statements.map((statement) => `${statement};`),
  ])
  return [
    ...statements,
    '',
    table([[`${tables.length} tables with rows`], ...rows]),
    ...findings.flatMap(renderFinding),
    'nothing was written',
  ].join('\n')
}

function renderChanges({ transactions, rows, reached }: NonNullable<Done['changes']>): string[] {
  const carried = `carried changes: ${transactions} transactions, ${rows} rows`
  return reached ? [`${carried}, up to ${reached.at}`] : [carried]
}

function render(done: Done, formatName: FormatName): string {
  const rows = done.tables.reduce((sum, one) => sum + one.rows, 0n)
  const bytes = done.tables.reduce((sum, one) => sum + one.bytes, 0)
  const made = Object.entries(done.objects).map(([kind, count]) => `${count} ${kind}`)
  const lines = done.tables.map((one) => [
    `  ${formatName(one.name)}`,
    `${one.rows} rows`,
    formatSizeBytes(one.bytes),
    formatSpan(one.tookMs),
  ])
  return [
    `migrated in ${formatSpan(done.tookMs)}: ${done.tables.length} tables, ${rows} rows, ${formatSizeBytes(bytes)}`,
    ...(lines.length > 0 ? [table(lines)] : []),
    ...(made.length > 0 ? [`made: ${made.join(', ')}`] : []),
    ...done.positions.map(({ at }) => `rows as of ${at}`),
    ...(done.changes ? renderChanges(done.changes) : []),
    ...done.findings.flatMap(renderFinding),
  ].join('\n')
}
