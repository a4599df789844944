import { formatSizeBytes } from '#base/bytes'
import { Fault } from '#base/faults'
import type { KeyAction, KeyEntry, ListedNode, Snapshot } from '#service/vault'
import { table } from './display.ts'
import { surroundings } from './surroundings.ts'
import { checkVerb, copyVerb, forgetVerb, pruneVerb, statsVerb } from './upkeep.ts'
import { passwordFileOption, readVault, vaultOption } from './vault-options.ts'
import type { Context, Input, Verb, VerbGroup } from './verb.ts'

const initVerb: Verb = {
  name: 'init',
  summary: 'make a vault, or add what a plain restic repository lacks to be one',
  options: [
    vaultOption,
    { flags: '--key-name <name>', help: 'name of the password', default: 'main' },
    passwordFileOption,
  ],
  examples: [
    ['redoubt vault init --vault /backup/vault', 'asks for a password'],
    [
      'redoubt vault init --vault "s3://backup/prod?region=eu-central-1"',
      'in a bucket that exists',
    ],
  ],
  async run(input, context) {
    const { makeVault } = await import('#service/vault')
    const made = await makeVault(readVault(input), input.text('key-name'), surroundings(context))
    context.display.result(made, ({ url, id }) => `vault ${id.slice(0, 8)} made at ${url}`)
    return undefined
  },
}

const listVerb: Verb = {
  name: 'ls',
  summary: 'the snapshots of a vault, or the files of one',
  operands: '[snapshot]',
  options: [vaultOption, passwordFileOption],
  examples: [
    ['redoubt vault ls --vault /backup/vault', 'all snapshots'],
    ['redoubt vault ls --vault /backup/vault latest', 'the files of the newest one'],
  ],
  async run(input, context) {
    const service = await import('#service/vault')
    const [snapshot] = input.operands
    if (snapshot === undefined) {
      const snapshots = await service.listSnapshots(readVault(input), surroundings(context))
      context.display.result(snapshots, renderSnapshots)
      return undefined
    }
    for await (const node of service.listNodes(readVault(input), snapshot, surroundings(context))) {
      context.display.entry(node, renderNode)
    }
    return undefined
  },
}

function renderSnapshots(snapshots: readonly Snapshot[]): string {
  if (snapshots.length === 0) return 'no snapshots yet'
  const rows = snapshots.map((snapshot) => [
    snapshot.id.slice(0, 8),
    snapshot.time.slice(0, 19),
    snapshot.hostname ?? '',
    (snapshot.tags ?? []).join(','),
    snapshot.paths.join(' '),
  ])
  return table([['id', 'time', 'host', 'tags', 'paths'], ...rows])
}

function renderNode({ kind, sizeBytes, mtimeNs, path }: ListedNode): string {
  const size = sizeBytes === undefined ? '' : formatSizeBytes(sizeBytes)
  const time = new Date(Number(mtimeNs / 1_000_000n)).toISOString().slice(0, 19)
  return `${kind.padEnd(8)}${size.padStart(12)}  ${time}  ${path}`
}

const keyActions = ['list', 'add', 'change', 'remove', 'enrol', 'strike'] as const

const keyVerb: Verb = {
  name: 'key',
  summary:
    'list, add, change or remove the passwords of a vault; enrol hosts that only archive, or strike them off',
  operands: '<action> [name]',
  operandChoices: keyActions,
  options: [
    vaultOption,
    {
      flags: '--new-password-file <file>',
      help: 'file with the new password; else REDOUBT_VAULT_NEW_PASSWORD, else asked for',
    },
    {
      flags: '--archiver-file <file>',
      help: 'enrol: where to write what the host needs for protect --archiver-file; made anew',
    },
    {
      flags: '--source <name>',
      help: 'enrol: the host may write the log of this source only',
      many: true,
    },
    {
      flags: '--with-log',
      help: 'strike: also when log that the host wrote goes with it; refused without',
    },
    passwordFileOption,
  ],
  examples: [
    ['redoubt vault key add second --vault /backup/vault', 'another password for everything'],
    ['redoubt vault key change --vault /backup/vault', 'another one in place of the present one'],
    ['redoubt vault key remove second --vault /backup/vault', 'the last one is refused'],
    [
      'redoubt vault key enrol db7 --vault /backup/vault --source shop --archiver-file db7.key',
      'a host that writes the log of shop, and can read nothing',
    ],
    [
      'redoubt vault key strike db7 --vault /backup/vault --with-log',
      'nothing that it wrote is believed any more: take a new base',
    ],
  ],
  async run(input, context) {
    const { changeKeys } = await import('#service/vault')
    const action = readKeyAction(input, context)
    const keys = await changeKeys(readVault(input), action, surroundings(context))
    context.display.result(keys, renderKeys)
    return undefined
  },
}

function readKeyAction(input: Input, context: Context): KeyAction {
  const [action, name] = input.operands
  const password = () => readNewPassword(input, context)
  const kind = keyActions.find((one) => one === action)
  switch (kind) {
    case 'list':
      return { kind }
    case 'change':
      return { kind, password }
    case 'add':
    case 'remove':
    case 'enrol':
    case 'strike':
      if (name === undefined) {
        throw new Fault('usage', `vault key ${kind}: the name is missing`, {
          hint: `Write redoubt vault key ${kind} NAME; redoubt vault key list shows those there are.`,
        })
      }
      if (kind === 'add') return { kind, name, password }
      if (kind === 'strike') return { kind, id: name, withLog: input.flag('with-log') }
      return kind === 'enrol' ? { kind, name, ...readEnrolment(input) } : { kind, name }
    case undefined:
      throw new Fault('usage', `vault key: '${action}' is not one of ${keyActions.join(', ')}`)
  }
}

function readEnrolment(input: Input) {
  const file = input.text('archiver-file')
  if (file !== undefined) return { file, sources: input.list('source') }
  throw new Fault('usage', 'vault key enrol: --archiver-file is missing', {
    hint: 'Name the file to write; give it to the host that archives, and to nobody else.',
  })
}

async function readNewPassword(input: Input, context: Context): Promise<string> {
  const { env } = context
  const given = env['REDOUBT_VAULT_NEW_PASSWORD']
  const file = input.text('new-password-file')
  if (file === undefined && given) return given
  const { readPassword } = await import('#service/open')
  const around = { ...surroundings(context), env: {} }
  if (file === undefined && !around.ask) {
    throw new Fault('usage', 'vault key: no new password was given', {
      hint: 'Set REDOUBT_VAULT_NEW_PASSWORD, or use --new-password-file.',
    })
  }
  return readPassword({ url: 'the new password', index: 0, passwordFile: file }, around)
}

function renderKeys(keys: readonly KeyEntry[]): string {
  const rows = keys.map((key) =>
    key.kind === 'password'
      ? [key.name, key.kind, key.current ? 'used now' : '']
      : [key.name, key.kind, `${key.sources?.join(', ') ?? 'all sources'}  ${key.id}`],
  )
  return table([['name', 'kind', ''], ...rows])
}

export const vaultGroup: VerbGroup = {
  name: 'vault',
  summary: 'make, list, check, copy and thin out vaults, and who may open them',
  verbs: [initVerb, listVerb, checkVerb, copyVerb, forgetVerb, pruneVerb, keyVerb, statsVerb],
}
