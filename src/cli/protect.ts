import { formatSizeBytes } from '#base/bytes'
import type { ProtectStatus } from '#service/protect'
import { progressLine } from './display.ts'
import { surroundings } from './surroundings.ts'
import { keepOptions, readKeep } from './upkeep.ts'
import {
  archiverFileOption,
  passwordFileOption,
  readProtectedVaults,
  vaultsOption,
} from './vault-options.ts'
import { baseForms, type Input, sessionsMax, type Verb } from './verb.ts'

const copiesMax = 16
const durabilities = ['async', 'strict'] as const
const defaultJournalBytes = 4 * 2 ** 30

export const protectVerb: Verb = {
  name: 'protect',
  summary: 'base backups and the continuous log of a source into a vault, until stopped',
  options: [
    {
      flags: '--source <url>',
      help: 'the database: postgres://…, mysql://…, mariadb://…',
      required: true,
    },
    vaultsOption,
    {
      flags: '--durability <mode>',
      help: 'async: within a second; strict: a commit returns only when the vault has it (RPO 0)',
      default: 'async',
      choices: durabilities,
    },
    {
      flags: '--copies <n>',
      help: 'strict: how many vaults must have a commit (default: the first one)',
    },
    { flags: '--name <name>', help: 'what the vault calls the source (default: host and port)' },
    { flags: '--base-every <span>', help: 'a new base backup after this long', default: '24h' },
    {
      flags: '--base <form>',
      help: 'physical or logical (default: what the engine does best)',
      choices: baseForms,
    },
    { flags: '--parallel <n>', help: 'sessions for a base backup', default: '2' },
    { flags: '--limit <rate>', help: 'bytes a second that a base may read, as 50MB/s' },
    { flags: '--state <dir>', help: 'the local journal (default: ~/.redoubt/protect/NAME)' },
    {
      flags: '--journal-limit <size>',
      help: 'how much log may wait for the vault here (default: 4GiB)',
    },
    {
      flags: '--lock <span>',
      help: 'object lock: nobody can delete archived segments for so long; the bucket must have it',
    },
    ...keepOptions,
    archiverFileOption,
    passwordFileOption,
  ],
  examples: [
    [
      'redoubt protect --source postgres://backup@db/shop --vault s3://backup/prod --name shop',
      'RPO of a second',
    ],
    [
      'redoubt protect --source mysql://backup@db --vault s3://b/a --vault s3://c/a --durability strict --copies 2',
      'every commit in two regions before it returns',
    ],
    [
      'redoubt protect --source postgres://backup@db --vault s3://b/a --archiver-file db.key --name shop',
      'the log alone, from a host that cannot read the vault',
    ],
  ],
  async run(input, context) {
    const { protectSource } = await import('#service/protect')
    const { display } = context
    let shown = ''
    await protectSource(
      {
        ...readSettings(input),
        keep: await readKeep(input),
        onStatus: (status) => {
          const line = statusLine(status)
          if (display.json) display.entry(status, () => line)
          else if (process.stderr.isTTY)
            process.stderr.write(`\r\u001b[K${line.slice(0, process.stderr.columns - 1)}`)
          else if (status.said !== shown) display.note(line)
          shown = status.said
        },
      },
      surroundings(context),
    )
    return undefined
  },
}

function readSettings(input: Input) {
  return {
    url: input.required('source'),
    vaults: readProtectedVaults(input),
    durability: input.choice('durability', durabilities) ?? 'async',
    copies: input.count('copies', copiesMax),
    name: input.text('name'),
    baseEveryMs: input.durationMs('base-every') ?? 24 * 3_600_000,
    form: input.choice('base', baseForms),
    parallel: input.count('parallel', sessionsMax) ?? 2,
    limitBytesPerSecond: input.sizeBytes('limit'),
    stateDirectory: input.text('state'),
    retainMs: input.durationMs('lock'),
    journalLimitBytes: input.sizeBytes('journal-limit') ?? defaultJournalBytes,
  }
}

/** `shop  RPO 0.3 s  at 0/3000060  journal 1.2 MiB  capturing` */
function statusLine(status: ProtectStatus): string {
  const parts = [
    status.source,
    status.lagMs === undefined ? 'RPO not known yet' : `RPO ${(status.lagMs / 1000).toFixed(1)} s`,
    `at ${status.position?.at ?? '-'}`,
    `journal ${formatSizeBytes(status.journalBytes)}`,
    status.degraded ? `DEGRADED: ${status.degraded}` : status.said,
  ]
  if (status.base) parts.push(progressLine(status.base, 0))
  return parts.join('  ')
}
