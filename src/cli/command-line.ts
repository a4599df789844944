import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { Fault, isAbort } from '#base/faults'
import { createLog, toJson, type Level } from '#base/log'
import { completionVerb, type Surface } from './completion.ts'
import { Display } from './display.ts'
import { type Output, watchOutput } from './output.ts'
import { Input, type OptionSpec, type Verb, type VerbGroup } from './verb.ts'
import { verbs } from './verbs.ts'
import { versionLine } from './version.ts'

const exitUsage = 2
const exitInterrupted = 130

/** Runs one command line; returns the exit code. Never throws. */
export async function runCommandLine(argv: readonly string[]): Promise<number> {
  let code = 0
  const output = watchOutput()
  const program = createProgram(async (verb, input) => {
    code = await runVerb(verb, input, output)
  })
  try {
    await program.parseAsync([...argv], { from: 'user' })
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return 0
      // Its words are on stderr already; a program that reads stdout gets them as a document too.
      if (argv.includes('--json')) sayError('usage', error.message.replace(/^error: /, ''))
      return exitUsage
    }
    throw error
  }
  return output.exitCode() ?? code
}

/** The whole command line as commander knows it; `run` is called for the verb that was named. */
export function createProgram(run: (verb: Verb, input: Input) => Promise<void>): Command {
  const program = new Command('redoubt')
  program.description('Disaster recovery for data: move it, keep it, survive with it.')
  program.exitOverride().showHelpAfterError('(run the verb with --help for its options)')
  program
    .helpCommand('help [verb]', 'the help page of a verb')
    .version(versionLine(), '-V, --version', 'which Redoubt this is')
  for (const entry of surface().verbs) {
    if ('verbs' in entry) addGroup(program, entry, run)
    else addVerb(program, entry, run)
  }
  return program
}

const levels = ['debug', 'info', 'warn', 'error'] as const satisfies readonly Level[]

type Run = (verb: Verb, input: Input) => Promise<void>

function addGroup(program: Command, group: VerbGroup, run: Run): void {
  const command = program.command(group.name).description(group.summary).helpCommand(false)
  for (const verb of group.verbs) addVerb(command, verb, run)
}

const commonOptions: readonly OptionSpec[] = [
  { flags: '--json', help: 'print the result as JSON on stdout' },
  { flags: '-q, --quiet', help: 'no progress on stderr' },
  {
    flags: '--log-level <level>',
    help: 'debug, info, warn or error',
    default: 'info',
    choices: levels,
  },
]

/** Everything that can be typed. */
export function surface(): Surface {
  return { verbs: [...verbs, completionVerb(surface)], common: commonOptions }
}

function addVerb(parent: Command, verb: Verb, run: Run): void {
  const command = parent.command(verb.name).description(verb.summary)
  if (verb.operands) command.arguments(verb.operands)
  for (const spec of [...verb.options, ...commonOptions]) command.addOption(toOption(spec))
  const examples = verb.examples.map(([line, meaning]) => `  $ ${line}\n      ${meaning}`)
  command.addHelpText('after', `\nExamples:\n${examples.join('\n')}`)
  command.action(async () => {
    await run(verb, new Input(command.args, command.opts()))
  })
}

function toOption(spec: OptionSpec): Option {
  const option = new Option(spec.flags, spec.help)
  if (spec.required) option.makeOptionMandatory()
  if (spec.default !== undefined) option.default(spec.default)
  if (!/[<[]/.test(spec.flags)) return option
  option.argParser((value: string, all: unknown) => {
    if (value.trim() === '' && !spec.mayBeEmpty) throw new InvalidArgumentError('It is empty.')
    return spec.many ? [...(Array.isArray(all) ? all : []), value] : value
  })
  return option
}

/** All of them stop in good order; the second one ends at once. SIGHUP: the terminal was closed. */
const stopSignals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

async function runVerb(verb: Verb, input: Input, output: Output): Promise<number> {
  const display = new Display({ json: input.flag('json'), quiet: input.flag('quiet') })
  const interrupt = new AbortController()
  const onSignal = (name: NodeJS.Signals) => {
    if (interrupt.signal.aborted) process.exit(exitInterrupted)
    interrupt.abort(new Fault('interrupted', `stop ${verb.name}: ${name} received`))
  }
  for (const name of stopSignals) process.on(name, onSignal)
  const signal = AbortSignal.any([interrupt.signal, output.signal])
  try {
    const level = input.choice('log-level', levels)
    const log = createLog({ write: (line) => display.note(line), level, json: display.json })
    const context = { signal, display, log, env: process.env }
    return (await verb.run(input, context)) ?? 0
  } catch (error) {
    if (output.signal.aborted) return output.exitCode() ?? 1
    return report(error, interrupt.signal, display)
  } finally {
    for (const name of stopSignals) process.off(name, onSignal)
  }
}

/** The document of a failure, on stdout. */
function sayError(code: string, message: string, hint?: string): void {
  process.stdout.write(`${toJson({ error: { code, message, hint } })}\n`)
}

/** Prints an error once, where it ends: a Fault in a sentence with its hint, a defect of ours with its stack. */
function report(error: unknown, signal: AbortSignal, display: Display): number {
  // What was under way fails in many ways when it is stopped: the reason is what the user did.
  const stopped = signal.aborted && (isAbort(error) || error instanceof Fault)
  const shown = stopped ? signal.reason : error
  if (shown instanceof Fault) {
    const { code, message, hint } = shown
    if (display.json) sayError(code, message, hint)
    process.stderr.write(`redoubt: ${message}\n${hint ? `  ${hint}\n` : ''}`)
    return shown.exitCode
  }
  const text = shown instanceof Error ? (shown.stack ?? shown.message) : String(shown)
  if (display.json) sayError('defect', text.split('\n')[0] ?? '', 'Please report it.')
  process.stderr.write(`redoubt: this is a defect, please report it\n${text}\n`)
  return 1
}
