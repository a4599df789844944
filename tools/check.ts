import { spawnSync } from 'node:child_process'
import { chmodSync, globSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import path from 'node:path'
import { runTestFiles } from './test-run.ts'
import { isNeed, matrix, needs, suffixesOf, type Need } from './needs.ts'

const home = path.resolve(import.meta.dirname, '..')
const bin = path.join(home, 'node_modules/.bin')
const services = process.env['REDOUBT_SERVICES'] ?? path.join(home, '.services')
/** A test that takes longer hangs. */
const testLimitMs = 15 * 60_000
/** So does a file that does, tests or not. */
const fileLimitMs = 25 * 60_000
/** Test files at a time: each may run servers of its own. */
const width = Math.max(2, Math.min(4, availableParallelism()))

type Outcome = { readonly name: string; readonly ok: boolean; readonly seconds: number }
const outcomes: Outcome[] = []
const notRun: string[] = []

async function main(args: readonly string[]): Promise<number> {
  const known = ['--all', '--soak', '--list']
  const unknown = args.find((arg) => !known.includes(arg))
  if (unknown !== undefined) {
    say(`check: ${unknown} is no option; there are ${known.join(', ')}`)
    return 2
  }
  process.chdir(home)
  if (args.includes('--list')) return list()
  if (args.includes('--soak')) return soak()
  await step('format', `${bin}/biome`, ['format', '.'])
  await step('lint', `${bin}/oxlint`, ['--type-aware'])
  await step('types', `${bin}/tsc`, ['--noEmit'])
  await step('dead code', `${bin}/knip`, [])
  if (args.includes('--all')) await matrixRuns()
  // Last, so that the log ends with what the test runner counted.
  await plainRun()
  return report()
}

/** Unit tests and, in the same run, all tests whose servers can be had. */
async function plainRun(): Promise<void> {
  const files = testFiles()
  const missing = new Set(fetch(servicesOf(files)))
  const lacking = (file: string) => servicesOf([file]).filter((name) => missing.has(name))
  for (const file of files) {
    for (const name of lacking(file)) notRun.push(`${file}: ${name} could not be fetched`)
  }
  await runTests(
    'tests',
    files.filter((file) => lacking(file).length === 0),
    {},
  )
}

async function matrixRuns(): Promise<void> {
  for (const { need, env, services: wanted } of matrix) {
    const files = testFiles().filter((file) => suffixesOf(file).includes(need))
    const [name = need] = Object.entries(env).map(([key, value]) => `${key}=${value}`)
    const missing = fetch([...wanted, ...servicesOf(files)])
    if (missing.length > 0) notRun.push(`${name}: ${missing.join(', ')} could not be fetched`)
    else await runTests(name, files, env)
  }
}

async function soak(): Promise<number> {
  const files = globSync('test/soak/**/*.ts').sort()
  fetch(Object.values(needs).flat())
  for (const file of files) await step(file, process.execPath, [file])
  if (files.length === 0) notRun.push('test/soak holds no trial')
  return report()
}

function list(): number {
  for (const file of testFiles()) say(`${file}\t${servicesOf([file]).join(' ')}`)
  return 0
}

function testFiles(): string[] {
  const files = globSync('{src,tools,test}/**/*.test.ts').sort()
  const chosen = files.filter((file) => !file.startsWith('test/soak/'))
  if (chosen.length === 0) throw new Error('no test found')
  return chosen
}

function servicesOf(files: readonly string[]): string[] {
  const wanted = new Set(files.flatMap(suffixesOf).filter(isNeed))
  return [...new Set([...wanted].flatMap((need: Need) => [...needs[need]]))]
}

/** Fetches services; returns those that cannot be had, each after a second try. */
function fetch(names: readonly string[]): string[] {
  return [...new Set(names)].filter((name) => {
    const [script, args] =
      name === 'npm' ? ['fetch-npm.sh', [services]] : ['fetch.sh', [services, name]]
    const once = () => run(path.join(home, 'tools/services', script), args)
    return !once() && !once()
  })
}

async function runTests(
  name: string,
  files: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<void> {
  if (files.length === 0) return
  // A test that hangs fails when its time is over; forced to exit, it does not hold up the run by what it leaves open.
  const limits = [
    `--test-concurrency=${width}`,
    `--test-timeout=${testLimitMs}`,
    '--test-force-exit',
  ]
  // A folder of the run's own, so that nothing stays behind. Its name is short: sockets lie below it.
  const temporary = mkdtempSync(path.join(tmpdir(), 'rc-'))
  chmodSync(temporary, 0o1777)
  await timed(name, () =>
    runTestFiles({
      args: ['--test-reporter=spec', ...limits, ...files],
      env: environment({ ...env, TMPDIR: temporary }),
      fileLimitMs,
      say,
    }),
  )
  for (const left of readdirSync(temporary)) say(`left behind: ${left}`)
  rmSync(temporary, { recursive: true, force: true })
}

function step(name: string, program: string, args: readonly string[]): Promise<void> {
  return timed(name, () => run(program, args))
}

async function timed(name: string, work: () => boolean | Promise<boolean>): Promise<void> {
  say(`== ${name}`)
  const started = performance.now()
  const ok = await work()
  outcomes.push({ name, ok, seconds: Math.round((performance.now() - started) / 1000) })
}

function run(program: string, args: readonly string[]): boolean {
  const done = spawnSync(program, args, {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: environment({}),
  })
  if (done.error) say(`${program}: ${done.error.message}`)
  return done.status === 0
}

function environment(more: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return { ...process.env, PATH: `${bin}:${process.env['PATH']}`, ...more }
}

function report(): number {
  const failed = outcomes.filter(({ ok }) => !ok)
  const took = outcomes.map(
    ({ name, ok, seconds }) => `${name} ${ok ? 'ok' : 'FAILED'} ${seconds} s`,
  )
  say(`\n== ${took.join(', ')}`)
  for (const line of notRun) say(`NOT RUN ${line}`)
  if (failed.length > 0) return 1
  // Where Debian's packages cannot be had by nature, what they bring is named and is no failure.
  return notRun.length > 0 && isDebian() ? 3 : 0
}

function isDebian(): boolean {
  return /^ID=debian$/m.test(readFileSync('/etc/os-release', 'utf8'))
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

process.exitCode = await main(process.argv.slice(2))
