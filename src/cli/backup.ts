import { formatSizeBytes } from '#base/bytes'
import { createProgress } from '#base/progress'
import type { BackupOutcome } from '#service/backup'
import { formatSpan } from './display.ts'
import { surroundings } from './surroundings.ts'
import { passwordFileOption, readVault, retryLockOption, vaultOption } from './vault-options.ts'
import { baseForms, type Input, sessionsMax, type Verb } from './verb.ts'

const exitFindings = 3
const compressions = ['off', 'fastest', 'auto', 'better', 'max'] as const

export const backupVerb: Verb = {
  name: 'backup',
  summary: 'one backup now: a base of a database, or a snapshot of files',
  options: [
    {
      flags: '--source <url-or-dir>',
      help: 'a database URL, or files and directories',
      many: true,
      required: true,
    },
    vaultOption,
    { flags: '--base <form>', help: 'databases: physical or logical', choices: baseForms },
    { flags: '--name <name>', help: 'databases: what the vault calls the source' },
    { flags: '--tag <tag>', help: 'a tag of the snapshot', many: true },
    { flags: '--exclude <pattern>', help: 'files: leave out what matches', many: true },
    {
      flags: '--iexclude <pattern>',
      help: 'files: the same, upper and lower case alike',
      many: true,
    },
    { flags: '--exclude-file <file>', help: 'files: patterns from a file, one a line', many: true },
    {
      flags: '--exclude-caches',
      help: 'files: leave out directories marked as caches (CACHEDIR.TAG)',
    },
    {
      flags: '--exclude-if-present <name>',
      help: 'files: leave out directories that hold this file',
      many: true,
    },
    { flags: '--exclude-larger-than <size>', help: 'files: leave out larger files' },
    { flags: '--one-file-system', help: 'files: do not cross into other file systems' },
    { flags: '--host <name>', help: "files: the snapshot's host name (default: this machine's)" },
    {
      flags: '--compression <mode>',
      help: 'off, fastest, auto, better or max',
      default: 'auto',
      choices: compressions,
    },
    { flags: '-n, --dry-run', help: 'tell what would be done' },
    { flags: '--parallel <n>', help: 'databases: sessions', default: '2' },
    { flags: '--limit <rate>', help: 'databases: bytes a second to read, as 50MB/s' },
    passwordFileOption,
    retryLockOption,
  ],
  examples: [
    [
      'redoubt backup --source /home --source /etc --vault /backup/vault --exclude "*.tmp"',
      'files',
    ],
    [
      'redoubt backup --source postgres://backup@db/shop --vault s3://backup/prod',
      'one base of a database',
    ],
  ],
  async run(input, context) {
    const progress = createProgress('backup')
    using _following = context.display.follow(progress)
    const { backup } = await import('#service/backup')
    const outcome = await backup({ ...readSettings(input), progress }, surroundings(context))
    context.display.result(outcome, render)
    return outcome.kind === 'files' && outcome.unreadCount > 0 ? exitFindings : 0
  },
}

function readSettings(input: Input) {
  return {
    sources: input.list('source'),
    vault: readVault(input),
    form: input.choice('base', baseForms),
    name: input.text('name'),
    tags: input.list('tag'),
    excludes: input.list('exclude'),
    excludesNoCase: input.list('iexclude'),
    excludeFiles: input.list('exclude-file'),
    excludeCaches: input.flag('exclude-caches'),
    excludeIfPresent: input.list('exclude-if-present'),
    excludeLargerThanBytes: input.sizeBytes('exclude-larger-than'),
    oneFileSystem: input.flag('one-file-system'),
    hostname: input.text('host'),
    compression: input.choice('compression', compressions),
    dryRun: input.flag('dry-run'),
    parallel: input.count('parallel', sessionsMax) ?? 2,
    limitBytesPerSecond: input.sizeBytes('limit'),
  }
}

function render(outcome: BackupOutcome): string {
  const size = `${formatSizeBytes(outcome.addedBytes)} new, ${formatSizeBytes(outcome.storedBytes)} stored`
  if (outcome.kind === 'base') {
    return `base ${outcome.name} of ${outcome.source}: ${size}, in ${formatSpan(outcome.tookMs)}`
  }
  const { summary, snapshot, troubles } = outcome
  const what = snapshot === undefined ? 'no snapshot' : `snapshot ${snapshot.slice(0, 8)}`
  const files = `${summary.files_new} new, ${summary.files_changed} changed, ${summary.files_unmodified} unmodified files`
  return [
    `${what}: ${files}, ${formatSizeBytes(summary.total_bytes_processed)}`,
    `${size}, in ${formatSpan(outcome.tookMs)}`,
    ...troubles.map(({ path, said }) => `${path}: ${said}`),
  ].join('\n')
}
