import { formatSizeBytes } from '#base/bytes'
import { createProgress } from '#base/progress'
import type {
  CopiedVault,
  PruneReport,
  RepositoryStats,
  Retained,
  VaultCheck,
} from '#service/upkeep'
import { surroundings } from './surroundings.ts'
import { passwordFileOption, readVault, retryLockOption, vaultOption } from './vault-options.ts'
import { exitFindings, type Input, type OptionSpec, type Verb } from './verb.ts'

export const checkVerb: Verb = {
  name: 'check',
  summary: 'check everything in a vault: repository, catalog, log',
  options: [
    vaultOption,
    { flags: '--read-data', help: 'read and prove every stored byte' },
    {
      flags: '--read-data-subset <part>',
      help: 'of the repository: n/t, a share as 5%, or a size as 1GiB, chosen at random',
    },
    passwordFileOption,
    retryLockOption,
  ],
  examples: [
    ['redoubt vault check --vault /backup/vault', 'structure only'],
    ['redoubt vault check --vault /backup/vault --read-data-subset 1/7', 'a seventh of the data'],
  ],
  async run(input, context) {
    const progress = createProgress('check')
    using _following = context.display.follow(progress)
    const { checkVault, readSubset } = await import('#service/upkeep')
    const readData = readSubset(input.flag('read-data'), input.text('read-data-subset'))
    const check = await checkVault(readVault(input), { readData, progress }, surroundings(context))
    context.display.result(check, renderCheck)
    return check.ok ? 0 : exitFindings
  },
}

function renderCheck({ ok, repository, log }: VaultCheck): string {
  const { snapshots, blobs, packs, packsRead, findings, unlisted } = repository
  return [
    ...findings.map(({ about, said, snapshots: hit }) => {
      const whose =
        hit.length > 0 ? ` (snapshots ${hit.map((id) => id.slice(0, 8)).join(', ')})` : ''
      return `${about}: ${said}${whose}`
    }),
    ...(unlisted > 0 ? [`and ${unlisted} more`] : []),
    ...log.map(({ object, said }) => (object ? `${object}: ${said}` : said)),
    `${snapshots} snapshots, ${blobs} blobs in ${packs} packs, ${packsRead} packs read`,
    ok ? 'no damage found' : 'DAMAGED: see above',
  ].join('\n')
}

/** What to keep: the same for `vault forget` and for `protect`. */
export const keepOptions: readonly OptionSpec[] = [
  { flags: '--keep-last <n>', help: 'keep the newest n' },
  { flags: '--keep-hourly <n>', help: 'keep the newest of each of the last n hours that have one' },
  { flags: '--keep-daily <n>', help: 'the same for days' },
  { flags: '--keep-weekly <n>', help: 'the same for weeks' },
  { flags: '--keep-monthly <n>', help: 'the same for months' },
  { flags: '--keep-yearly <n>', help: 'the same for years' },
  { flags: '--keep-within <span>', help: 'keep all of this span before the newest, as 1y5m7d2h' },
  { flags: '--keep-within-hourly <span>', help: 'keep hourly ones of this span' },
  { flags: '--keep-within-daily <span>', help: 'keep daily ones of this span' },
  { flags: '--keep-within-weekly <span>', help: 'keep weekly ones of this span' },
  { flags: '--keep-within-monthly <span>', help: 'keep monthly ones of this span' },
  { flags: '--keep-within-yearly <span>', help: 'keep yearly ones of this span' },
  { flags: '--keep-tag <tags>', help: 'keep what bears these tags', many: true, mayBeEmpty: true },
]

/** Reads them. */
export async function readKeep(input: Input) {
  const { readKeepRules } = await import('#service/upkeep')
  return readKeepRules((option) => input.text(option), input.list('keep-tag'))
}

export const forgetVerb: Verb = {
  name: 'forget',
  summary: 'forget snapshots by rules or by id, and the log that no base needs any more',
  operands: '[snapshots...]',
  options: [
    vaultOption,
    ...keepOptions,
    {
      flags: '--group-by <words>',
      help: 'host, paths, tags; what the rules count within',
      default: 'host,paths',
      mayBeEmpty: true,
    },
    { flags: '--host <name>', help: 'of this host only', many: true },
    { flags: '--tag <tags>', help: 'with these tags only', many: true, mayBeEmpty: true },
    { flags: '--path <path>', help: 'of this path only', many: true },
    { flags: '-n, --dry-run', help: 'tell what would be forgotten' },
    passwordFileOption,
    retryLockOption,
  ],
  examples: [
    [
      'redoubt vault forget --vault /backup/vault --keep-daily 7 --keep-weekly 5 --dry-run',
      'look first',
    ],
    ['redoubt vault forget 4f3a2b1c --vault /backup/vault', 'this one'],
  ],
  async run(input, context) {
    const { forget } = await import('#service/upkeep')
    const settings = {
      vault: readVault(input),
      ids: input.operands,
      rules: await readKeep(input),
      groupBy: input.required('group-by'),
      hosts: input.list('host'),
      tags: input.list('tag'),
      paths: input.list('path'),
      dryRun: input.flag('dry-run'),
    }
    const retained = await forget(settings, surroundings(context))
    context.display.result(retained, (done) => renderForget(done, settings.dryRun))
    return undefined
  },
}

function renderForget({ groups, removed, log }: Retained, dryRun: boolean): string {
  const kept = groups.flatMap((group) => group.reasons)
  return [
    ...kept.map(
      ({ snapshot, matches }) => `keep    ${snapshot.id.slice(0, 8)}  ${matches.join(', ')}`,
    ),
    ...removed.map(
      ({ id, time }) => `${dryRun ? 'would forget' : 'forgot'} ${id.slice(0, 8)}  ${time}`,
    ),
    ...log
      .filter(({ objects }) => objects > 0)
      .map(
        ({ source, before, objects }) =>
          `${source}: ${objects} log objects before ${before.at} removed`,
      ),
    `${removed.length} snapshots ${dryRun ? 'would be forgotten' : 'forgotten'}; redoubt vault prune frees their space`,
  ].join('\n')
}

export const pruneVerb: Verb = {
  name: 'prune',
  summary: 'free the space of what no snapshot needs, in two phases a grace period apart',
  options: [
    vaultOption,
    {
      flags: '--max-unused <limit>',
      help: 'how much unused data may stay: 5%, a size, or unlimited',
    },
    { flags: '--max-repack-size <size>', help: 'rewrite packs of at most this size in all' },
    {
      flags: '--grace <span>',
      help: 'how long a pack that nothing needs is kept (default: 24h); 0 deletes at once',
    },
    { flags: '-n, --dry-run', help: 'tell what would be done' },
    passwordFileOption,
    retryLockOption,
  ],
  examples: [
    [
      'redoubt vault prune --vault /backup/vault',
      'mark now what a run after the grace period deletes',
    ],
    ['redoubt vault prune --vault /backup/vault --dry-run --json', 'how much there is to free'],
  ],
  async run(input, context) {
    const progress = createProgress('prune')
    using _following = context.display.follow(progress)
    const { prune } = await import('#service/upkeep')
    const settings = {
      vault: readVault(input),
      maxUnused: input.text('max-unused'),
      maxRepackBytes: input.sizeBytes('max-repack-size'),
      graceMs: input.text('grace') === '0' ? 0 : input.durationMs('grace'),
      dryRun: input.flag('dry-run'),
      progress,
    }
    const report = await prune(settings, surroundings(context))
    context.display.result(report, renderPrune)
    return undefined
  },
}

function renderPrune(report: PruneReport): string {
  const size = formatSizeBytes
  return [
    `${report.snapshots} snapshots need ${size(report.usedBytes)}; ${size(report.unusedBytes)} are unused`,
    `${report.repacked} packs rewritten (${size(report.repackedBytes)})`,
    `${report.marked} packs marked for deletion (${size(report.markedBytes)})`,
    `${report.deleted} packs deleted (${size(report.deletedBytes)}), ${report.waiting} wait for their grace period`,
    ...(report.retained > 0 ? [`${report.retained} packs the store does not let go yet`] : []),
    ...(report.rescued > 0 ? [`${report.rescued} marked packs are needed again, and back`] : []),
  ].join('\n')
}

export const copyVerb: Verb = {
  name: 'copy',
  summary: 'bring a second vault up to this one: snapshots, bases, log',
  operands: '[snapshots...]',
  options: [
    vaultOption,
    { flags: '--to <url>', help: 'the second vault, made before with vault init', required: true },
    {
      flags: '--to-password-file <file>',
      help: 'its password; else REDOUBT_VAULT_PASSWORD_2, else that of the first vault',
    },
    { flags: '-n, --dry-run', help: 'tell what would be copied' },
    passwordFileOption,
    retryLockOption,
  ],
  examples: [
    ['redoubt vault copy --vault /backup/vault --to s3://backup/prod', 'everything'],
    [
      'redoubt vault copy latest --vault /backup/vault --to s3://backup/prod',
      'the newest snapshot, and the log',
    ],
  ],
  async run(input, context) {
    const progress = createProgress('copy')
    using _following = context.display.follow(progress)
    const { copy } = await import('#service/upkeep')
    const from = readVault(input)
    const passwordFile = input.text('to-password-file')
    const to = { ...from, url: input.required('to'), index: 1, passwordFile }
    const dryRun = input.flag('dry-run')
    const settings = { from, to, ids: input.operands, dryRun, progress }
    const copied = await copy(settings, surroundings(context))
    context.display.result(copied, (done) => renderCopy(done, dryRun))
    return undefined
  },
}

function renderCopy(
  { copied, present, addedBytes, bases, logs }: CopiedVault,
  dryRun: boolean,
): string {
  return [
    ...copied.map(
      ({ from, to }) =>
        `${from.slice(0, 8)} ${dryRun ? 'would be copied' : `is ${to.slice(0, 8)} there`}`,
    ),
    `${copied.length} snapshots, ${formatSizeBytes(addedBytes)} new there; ${present} were there already`,
    ...(bases.length > 0 ? [`bases: ${bases.join(', ')}`] : []),
    ...(logs.length > 0 ? [`log of ${logs.join(', ')} brought up to here`] : []),
  ].join('\n')
}

export const statsVerb: Verb = {
  name: 'stats',
  summary: "what a vault's snapshots would restore, and what they take",
  options: [vaultOption, passwordFileOption, retryLockOption],
  examples: [['redoubt vault stats --vault /backup/vault', 'sizes and ratios']],
  async run(input, context) {
    const progress = createProgress('stats')
    using _following = context.display.follow(progress)
    const { measure } = await import('#service/upkeep')
    const stats = await measure(readVault(input), progress, surroundings(context))
    context.display.result(stats, renderStats)
    return undefined
  },
}

function renderStats(stats: RepositoryStats): string {
  const size = formatSizeBytes
  return [
    `${stats.snapshots} snapshots would restore ${size(stats.restoreBytes)} in ${stats.restoreNodes} nodes`,
    `they need ${size(stats.plainBytes)}, deduplicated ${stats.deduplicationRatio.toFixed(2)} times`,
    `stored as ${size(stats.storedBytes)}, compressed ${stats.compressionRatio.toFixed(2)} times`,
    `${stats.packs} packs in all`,
  ].join('\n')
}
