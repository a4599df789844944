import { formatTimeUs } from '#base/time'
import type { WindowReport } from '#service/window'
import { formatSpan, strong, table } from './display.ts'
import { surroundings } from './surroundings.ts'
import { passwordFileOption, readVault, vaultOption } from './vault-options.ts'
import type { Verb } from './verb.ts'

export const windowVerb: Verb = {
  name: 'window',
  summary: 'from when to when each source can be restored, with gaps, bases and proofs',
  options: [
    vaultOption,
    { flags: '--source <name>', help: 'this source only' },
    passwordFileOption,
  ],
  examples: [
    ['redoubt window --vault /backup/vault', 'everything that can be restored'],
    ['redoubt window --vault s3://backup/prod --source shop --json', 'for a monitor'],
  ],
  async run(input, context) {
    const { listWindows } = await import('#service/window')
    const reports = await listWindows(readVault(input), input.text('source'), surroundings(context))
    context.display.result(reports, (all) => all.map(render).join('\n\n') || 'no sources yet')
    return undefined
  },
}

function render(report: WindowReport): string {
  const { source, windows, gaps, bases, lastProof, rpoMs, degraded } = report
  const rows = windows.map((window) => [
    formatTimeUs(window.fromUs),
    window.continuous ? formatTimeUs(window.toUs) : '(this moment only)',
    String(window.bases.length),
    `${window.from.at} to ${window.to.at}`,
  ])
  const lines = [
    `${strong(source.name)}  ${source.flavor} ${source.version}  ${source.url}`,
    ...(degraded ? [renderDegraded(degraded)] : []),
    windows.length > 0
      ? table([['from', 'to', 'bases', 'positions'], ...rows])
      : 'nothing can be restored yet',
    ...gaps.map(
      (gap) => `gap: ${gap.said}, from ${gap.after.at}${gap.before ? ` to ${gap.before.at}` : ''}`,
    ),
    `bases: ${bases.map((base) => base.name).join(', ') || 'none'}`,
    lastProof
      ? `last proof: ${new Date(lastProof.recordedMs).toISOString()}, restored in ${formatSpan(lastProof.tookMs)}`
      : 'last proof: never restored (redoubt restore --prove)',
  ]
  if (rpoMs !== undefined) lines.push(`newest restorable moment is ${formatSpan(rpoMs)} old`)
  return lines.join('\n')
}

function renderDegraded({ said, sinceMs, heardMs }: NonNullable<WindowReport['degraded']>): string {
  const [since, heard] = [sinceMs, heardMs].map((ms) => new Date(ms).toISOString())
  return `${strong('DEGRADED')} since ${since}: ${said} (last heard at ${heard})`
}
