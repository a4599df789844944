import { formatSizeBytes } from '#base/bytes'
import { createProgress, type Progress } from '#base/progress'
import { Fault } from '#base/faults'
import { formatTimeUs } from '#base/time'
import type { Proved, Restored } from '#service/restore'
import type { OpenedRestore } from '#service/restore-files'
import { formatSpan } from './display.ts'
import { surroundings } from './surroundings.ts'
import { passwordFileOption, readVault, retryLockOption, vaultOption } from './vault-options.ts'
import { type Context, exitFindings, type Input, sessionsMax, type Verb } from './verb.ts'

const overwritePolicies = ['always', 'if-changed', 'if-newer', 'never'] as const

export const restoreVerb: Verb = {
  name: 'restore',
  summary: 'bring a source, or files, back to a moment',
  options: [
    vaultOption,
    {
      flags: '--source <name>',
      help: 'the database, or a path of files; may be left out where the vault holds one',
    },
    {
      flags: '--at <moment>',
      help: 'a time (UTC unless it says otherwise), a position, a transaction, a name, a snapshot, or latest',
      default: 'latest',
    },
    { flags: '--to <target>', help: 'a directory, or the URL of a running server' },
    {
      flags: '--only <pattern>',
      help: 'database.schema.table, or a path of a file tree, with *',
      many: true,
    },
    {
      flags: '--start',
      help: 'start the restored server and wait until it has reached the moment',
    },
    { flags: '--server-bin <dir>', help: "folder of the engine's server programs" },
    { flags: '--map <old=new>', help: 'put a tablespace elsewhere', many: true },
    { flags: '--force', help: 'write into a target that is not empty' },
    {
      flags: '--prove',
      help: 'restore into a scratch server, check it, record the proof, leave nothing',
    },
    { flags: '--exclude <pattern>', help: 'files: leave out what matches', many: true },
    { flags: '--host <name>', help: 'files: snapshots of this host only' },
    { flags: '--tag <tag>', help: 'files: snapshots with this tag only', many: true },
    { flags: '--subpath <dir>', help: "files: this directory's contents instead of the whole" },
    {
      flags: '--overwrite <policy>',
      help: 'files: always, if-changed, if-newer or never, for what is there already',
      choices: overwritePolicies,
    },
    { flags: '--delete', help: 'files: remove what is in the target and not in the snapshot' },
    { flags: '--dense', help: 'files: write runs of zeroes instead of leaving holes' },
    { flags: '--verify', help: 'files: read everything again and compare' },
    { flags: '--compare', help: 'files: write nothing, tell what differs (exit 3)' },
    { flags: '-n, --dry-run', help: 'files: tell what would be written' },
    { flags: '--parallel <n>', help: 'sessions', default: '2' },
    passwordFileOption,
    retryLockOption,
  ],
  examples: [
    [
      "redoubt restore --vault /backup/vault --at '2026-03-01 12:29:59' --to /var/lib/pg-restored --start",
      'to the second before the mistake',
    ],
    ['redoubt restore --vault s3://backup/prod --source shop --prove', 'prove that it can be done'],
    [
      'redoubt restore --vault /backup/vault --only shop.public.orders --to postgres://db/shop',
      'one table',
    ],
  ],
  async run(input, context) {
    const progress = createProgress('restore')
    using _following = context.display.follow(progress)
    const asked = {
      vault: readVault(input),
      source: input.text('source'),
      at: input.required('at'),
      only: input.list('only'),
      remap: readMap(input),
      serverBin: input.text('server-bin'),
      parallel: input.count('parallel', sessionsMax) ?? 2,
      progress,
    }
    const around = surroundings(context)
    const files = await import('#service/restore-files')
    const prove = input.flag('prove')
    await using opened = await files.openRestore({ ...asked, prove }, around)
    const settings = { ...asked, vault: opened.vault }
    if (opened.isFiles) {
      const ofFiles = { ...readFilesSettings(input), vault: opened.vault, progress }
      return await restoreFiles(ofFiles, context)
    }
    const service = await import('#service/restore')
    if (prove) {
      const proved = await service.prove(settings, around)
      context.display.result(proved, renderProof)
      return proved.ok ? 0 : 1
    }
    const places = { to: readTo(input), start: input.flag('start'), force: input.flag('force') }
    const restored = await service.restoreDatabase({ ...settings, ...places }, around)
    context.display.result(restored, render)
    return undefined
  },
}

function readTo(input: Input): string {
  const to = input.text('to')
  if (to !== undefined) return to
  throw new Fault('usage', 'restore: --to is missing', {
    hint: 'Name a directory or a server, or use --prove.',
  })
}

function readFilesSettings(input: Input) {
  const source = input.text('source')
  const overwrite = input.choice('overwrite', overwritePolicies)
  return {
    at: input.required('at'),
    paths: source === undefined ? [] : [source],
    hostname: input.text('host'),
    tags: input.list('tag'),
    directory: readTo(input),
    subpath: input.text('subpath'),
    includes: input.list('only'),
    excludes: input.list('exclude'),
    overwrite: overwrite ?? (input.flag('force') ? ('if-changed' as const) : undefined),
    removeOthers: input.flag('delete'),
    sparse: !input.flag('dense'),
    verify: input.flag('verify'),
    dryRun: input.flag('dry-run'),
    compare: input.flag('compare'),
  }
}

async function restoreFiles(
  settings: ReturnType<typeof readFilesSettings> &
    Pick<OpenedRestore, 'vault'> & {
      readonly progress: Progress
    },
  context: Context,
): Promise<number> {
  const { display } = context
  const service = await import('#service/restore-files')
  if (settings.compare) {
    let differences = 0
    for await (const difference of service.compareTrees(settings, surroundings(context))) {
      differences += 1
      display.entry(
        difference,
        ({ kind, path, said }) => `${kind} ${path}${said ? `: ${said}` : ''}`,
      )
    }
    return differences > 0 ? exitFindings : 0
  }
  const restored = await service.restoreTrees(settings, surroundings(context))
  display.result({ ...restored, dryRun: settings.dryRun }, (done) =>
    [
      `${done.dryRun ? 'would restore' : 'restored'} snapshot ${done.snapshot.id.slice(0, 8)}: ${done.files} files, ${done.directories} directories`,
      `${formatSizeBytes(done.writtenBytes)} written, ${formatSizeBytes(done.keptBytes)} in place already`,
      ...done.troubles.map((trouble) => `${trouble.path}: ${trouble.said}`),
    ].join('\n'),
  )
  return restored.troubleCount > 0 ? exitFindings : 0
}

function readMap(input: Input): Readonly<Record<string, string>> {
  const pairs = input.list('map').map((pair) => {
    const at = pair.indexOf('=')
    if (at > 0 && at < pair.length - 1) return [pair.slice(0, at), pair.slice(at + 1)] as const
    throw new Fault('usage', `read --map: '${pair}' is not old=new`)
  })
  return Object.fromEntries(pairs)
}

function render({ base, result, tookMs }: Restored): string {
  const { last, reached, next, url } = result
  return [
    `restored from base ${base} in ${formatSpan(tookMs)}`,
    `reached ${reached.at}${last ? `, last commit ${last.id} at ${formatTimeUs(last.timeUs)}` : ''}`,
    ...(url ? [`running at ${url}`] : []),
    ...next,
  ].join('\n')
}

function renderProof(proved: Proved): string {
  const checks = proved.checks.map(
    (check) => `${check.ok ? '✓' : '✗'} ${check.name}: ${check.said}`,
  )
  return [...checks, proved.ok ? `proved in ${formatSpan(proved.tookMs)}` : 'NOT proved'].join('\n')
}
