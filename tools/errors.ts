import { codes } from '#base/faults'

const recoveries = {
  retry: 'tried again by itself, a bounded number of times',
  reset: 'started over from a clean state',
  stop: 'left to the operator',
} as const

const exits: readonly (readonly [number, string])[] = [
  [0, 'Done.'],
  [1, 'Failed.'],
  [2, 'Bad usage or configuration.'],
  [3, 'Differences found, or done with findings.'],
  [4, 'An endpoint or a vault cannot be reached or refuses the credentials.'],
  [5, 'Refused by a pre-check or a fence.'],
  [130, 'Interrupted; the state is kept.'],
]

/** The page docs/operations/errors.md. */
export function renderErrors(): string {
  const rows = Object.entries(codes).map(
    ([code, { exit, http, recovery, meaning }]) =>
      `| \`${code}\` | ${meaning} | ${exit} | ${http} | ${recovery} |`,
  )
  return [
    '# Errors and exit codes',
    '',
    '<!-- Rendered from the table in src/base/faults.ts by `npm run render`; edit it there. -->',
    '',
    'Every failure has a code. With `--json` it is the field `code` of the error, in the API the field `code` of the',
    'problem document. The message names the thing and the value, the hint says the way out.',
    '',
    '## Exit codes of the command line',
    '',
    '| exit | meaning |',
    '|-|-|',
    ...exits.map(([exit, meaning]) => `| ${exit} | ${meaning} |`),
    '',
    '## Codes',
    '',
    ...Object.entries(recoveries).map(([name, meaning]) => `- **${name}**: ${meaning}.`),
    '',
    '| code | meaning | exit | HTTP | what happens next |',
    '|-|-|-|-|-|',
    ...rows,
    '',
  ].join('\n')
}
