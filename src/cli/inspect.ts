import type { Inspection } from '#service/inspect'
import { table } from './display.ts'
import { surroundings } from './surroundings.ts'
import { exitFindings, type Verb } from './verb.ts'

type Finding = Inspection['findings'][number]

const exitRefused = 5
const uses = [
  'backup',
  'protect',
  'protect-strict',
  'migrate-from',
  'migrate-to',
  'sync-from',
  'sync-to',
] as const

export const inspectVerb: Verb = {
  name: 'inspect',
  summary: 'facts of a source, and what it lacks for a use, with the statements that mend it',
  operands: '<url>',
  options: [
    {
      flags: '--for <use>',
      help: `${uses.slice(0, -1).join(', ')} or ${uses.at(-1)}`,
      default: 'protect',
      choices: uses,
    },
  ],
  examples: [
    ['redoubt inspect postgres://app@db:5432/shop', 'is this server fit to be protected?'],
    ['redoubt inspect --for protect-strict mysql://root@127.0.0.1', 'fit for an RPO of 0?'],
  ],
  async run(input, context) {
    const use = input.choice('for', uses) ?? 'protect'
    const { inspect } = await import('#service/inspect')
    const inspection = await inspect(input.operands[0] ?? '', use, surroundings(context))
    context.display.result(inspection, render)
    if (!inspection.fit) return exitRefused
    return inspection.findings.some((f) => f.severity === 'warns') ? exitFindings : 0
  },
}

function render({ url, facts, use, findings, fit }: Inspection): string {
  const rows = Object.entries(facts.details).map(([name, value]) => [`  ${name}`, value])
  const head = `${facts.flavor} ${facts.version} at ${url}`
  const verdict = fit ? `fit for ${use}` : `not fit for ${use}`
  return [
    table([[head], ...rows]),
    '',
    ...findings.flatMap(renderFinding),
    findings.length > 0 ? `\n${verdict}` : verdict,
  ].join('\n')
}

const marks: Readonly<Record<Finding['severity'], string>> = {
  blocks: '✗',
  warns: '!',
  notes: '·',
}

function renderFinding(finding: Finding): string[] {
  const line = `${marks[finding.severity]} ${finding.said}`
  return finding.mend ? [line, `    ${finding.mend.replaceAll('\n', '\n    ')}`] : [line]
}
