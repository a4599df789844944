// Our repository against stock restic on the same generated files: first backup, unchanged, changed, restore,
// check of all data; with compression and without. Usage: node bench/repository.ts [--size 256MiB] [--folder DIR]
// [--rounds 1] [--modes auto,off] [--keep]. Prints a table, and one line of JSON for each measured run.
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { cpus, loadavg, tmpdir } from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { formatSizeBytes, parseSizeBytes } from '#base/bytes'
import { home, service } from '../test/support/servers/services.ts'
import { measure, warmMemory, type Cost } from './measure.ts'
import { changeMixedData, makeMixedData } from './mixed-data.ts'

type Contender = {
  readonly name: string
  command(verb: Verb, repository: string, folder: string, mode: string): readonly string[]
}
type Verb = 'init' | 'backup' | 'restore' | 'check'
type Row = Cost & { readonly name: string; readonly mode: string; readonly step: string }

const node = path.join(home, 'node_modules/.bin/node')
const ours: Contender = {
  name: 'redoubt',
  command: (verb, repository, folder, mode) => {
    return [node, path.join(home, 'bench/repository-run.ts'), verb, repository, folder, mode]
  },
}

async function restic(name: string, label: string): Promise<Contender> {
  const { bin } = await service(name)
  const program = [path.join(bin, 'restic'), '--no-cache', '--quiet']
  return {
    name: label,
    command: (verb, repository, folder, mode) => {
      const at = [...program, '--repo', repository]
      switch (verb) {
        case 'init':
          return [...at, 'init', '--repository-version', '2']
        case 'backup':
          return [...at, 'backup', '--compression', mode, folder]
        case 'restore':
          return [...at, 'restore', 'latest', '--target', folder]
        case 'check':
          return [...at, 'check', '--read-data']
        default:
          throw new Error(verb satisfies never)
      }
    },
  }
}

const { values } = parseArgs({
  options: {
    size: { type: 'string', default: '256MiB' },
    folder: { type: 'string', default: '' },
    rounds: { type: 'string', default: '1' },
    modes: { type: 'string', default: 'auto,off' },
    keep: { type: 'boolean', default: false },
  },
})
const sizeBytes = parseSizeBytes(values.size) ?? 0
const root = values.folder || mkdtempSync(path.join(tmpdir(), 'redoubt-bench-'))
const data = path.join(root, 'data')
// As the launcher sets it, so that all threads of ours find their modules compiled.
const cache = path.join(home, 'build/compile-cache')
const env = { RESTIC_PASSWORD: 'bench', NODE_COMPILE_CACHE: cache }
const contenders = [
  ours,
  await restic('restic@bookworm', 'restic 0.14'),
  await restic('restic', 'restic 0.19'),
]
const rows: Row[] = []
const sizes = new Map<string, number>()

function diskBytes(folder: string): number {
  return Number(execFileSync('du', ['-sb', folder]).toString().split('\t')[0])
}

async function step(contender: Contender, mode: string, name: string, verb: Verb, folder: string) {
  const repository = path.join(root, `repository-${contender.name.replace(' ', '-')}-${mode}`)
  const command = contender.command(verb, repository, folder, mode)
  const cost = await measure(command, env)
  if (verb !== 'init') {
    rows.push({ ...cost, name: contender.name, mode, step: name })
    const { wallMs, cpuMs, peakBytes } = cost
    const shown = command.map((word) => word.replace(root, 'DIR').replace(home, '.')).join(' ')
    const load = loadavg()[0]
    console.log(
      JSON.stringify({
        name: contender.name,
        mode,
        step: name,
        wallMs,
        cpuMs,
        peakBytes,
        load,
        command: shown,
      }),
    )
  }
  sizes.set(`${contender.name} ${mode} ${name}`, verb === 'backup' ? diskBytes(repository) : 0)
}

async function round(): Promise<void> {
  rmSync(data, { recursive: true, force: true })
  mkdirSync(data, { recursive: true })
  makeMixedData(data, sizeBytes)
  const modes = values.modes.split(',')
  // Step by step and side by side, so that a busy minute of the machine hits all of them.
  const all = modes.flatMap((mode) => contenders.map((contender) => ({ mode, contender })))
  for (const { mode, contender } of all) await step(contender, mode, 'init', 'init', '')
  for (const { mode, contender } of all) await step(contender, mode, 'first', 'backup', data)
  for (const { mode, contender } of all) await step(contender, mode, 'unchanged', 'backup', data)
  changeMixedData(data, sizeBytes)
  for (const { mode, contender } of all) await step(contender, mode, 'changed', 'backup', data)
  for (const { mode, contender } of all) {
    const target = path.join(root, 'restored')
    warmMemory(sizeBytes)
    await step(contender, mode, 'restore', 'restore', target)
    execFileSync('diff', ['-r', data, path.join(target, data)])
    rmSync(target, { recursive: true })
    await step(contender, mode, 'check', 'check', '')
  }
  if (values.keep) return
  for (const { mode, contender } of all) {
    const repository = `repository-${contender.name.replace(' ', '-')}-${mode}`
    rmSync(path.join(root, repository), { recursive: true })
  }
}

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[numbers.length >> 1] ?? 0
}

function show(): void {
  console.log(`\n${formatSizeBytes(sizeBytes)} of files, ${cpus().length} x ${cpus()[0]?.model}`)
  console.log(
    '| mode | step | tool | CPU s | wall s | peak | repository | CPU, wall against ours |',
  )
  console.log('|-|-|-|-|-|-|-|-|')
  const keys = [...new Set(rows.map((row) => `${row.mode}/${row.step}`))]
  for (const key of keys) {
    const [mode = '', name = ''] = key.split('/')
    const of = (tool: string) =>
      rows.filter((row) => row.mode === mode && row.step === name && row.name === tool)
    const middle = (tool: string, field: 'cpuMs' | 'wallMs') =>
      median(of(tool).map((row) => row[field]))
    for (const { name: tool } of contenders) {
      const peak = Math.max(...of(tool).map((row) => row.peakBytes))
      const size = sizes.get(`${tool} ${mode} ${name}`) ?? 0
      const against = (field: 'cpuMs' | 'wallMs') =>
        (middle(tool, field) / middle(ours.name, field)).toFixed(2)
      const seconds = (field: 'cpuMs' | 'wallMs') => (middle(tool, field) / 1000).toFixed(2)
      console.log(
        `| ${mode} | ${name} | ${tool} | ${seconds('cpuMs')} | ${seconds('wallMs')} | ${formatSizeBytes(peak)} | ` +
          `${size ? formatSizeBytes(size) : ''} | ${against('cpuMs')}, ${against('wallMs')} |`,
      )
    }
  }
}

try {
  for (let i = 0; i < Number(values.rounds); i++) await round()
  show()
} finally {
  if (!values.keep) rmSync(root, { recursive: true, force: true })
}
