import {
  confirm,
  intro,
  isCancel,
  log,
  note,
  outro,
  S_BAR,
  S_STEP_ERROR,
  S_STEP_SUBMIT,
} from '@clack/prompts'
import { styleText } from 'node:util'
import { Fault } from '#base/faults'

/** Where the story is shown. */
export interface Stage {
  open(title: string): void
  /** The next chapter: a heading, and what is about to happen. */
  act(title: string, text: string): void
  /** A command that is being run, as the reader could type it. */
  command(line: string): void
  /** Something that takes time; `tell` changes what is said meanwhile, and the result's `said` stays. */
  work<T>(
    saying: string,
    work: (tell: (said: string) => void) => Promise<{ readonly value: T; readonly said: string }>,
  ): Promise<T>
  fact(text: string, kind?: 'good' | 'bad' | 'plain'): void
  card(title: string, lines: readonly string[]): void
  /** Waits for the reader to go on; throws `interrupted` when he does not want to. */
  ask(question: string): Promise<boolean>
  close(text: string): void
}

/** A terminal, with somebody before it or (`once`) nobody to ask. */
export function openTerminalStage(options: {
  readonly once: boolean
  readonly yes: string
  readonly no: string
}): Stage {
  return {
    open: (title) => intro(styleText(['bgCyan', 'black'], ` ${title} `)),
    act: (title, text) => log.step(`${styleText('bold', title)}\n${styleText('dim', text)}`),
    command: (line) => log.message(styleText('cyan', `$ ${line}`), { spacing: 0 }),
    work: runWithSpinner,
    fact: (text, kind = 'plain') => {
      if (kind === 'good') log.success(text)
      else if (kind === 'bad') log.error(text)
      else log.info(text)
    },
    card: (title, lines) => note(lines.join('\n'), title),
    ask: async (question) => {
      if (options.once) return true
      const answer = await confirm({
        message: question,
        active: options.yes,
        inactive: options.no,
      })
      if (isCancel(answer)) throw new Fault('interrupted', 'play the demo: stopped by the reader')
      return answer
    },
    close: (text) => outro(text),
  }
}

const frames = ['◒', '◐', '◓', '◑']
const frameMs = 90

/**
 * Says what is being done, with the seconds that it takes, in one line that turns. The library's own spinner reads the
 * keyboard and ends the process at Ctrl-C, with nothing tidied up: this one leaves Ctrl-C to the command line.
 */
async function runWithSpinner<T>(
  saying: string,
  work: (tell: (said: string) => void) => Promise<{ readonly value: T; readonly said: string }>,
): Promise<T> {
  const out = process.stdout
  const startedMs = performance.now()
  let said = saying
  let count = 0
  const draw = () => {
    const frame = styleText('magenta', frames[count++ % frames.length] ?? '')
    const seconds = Math.floor((performance.now() - startedMs) / 1000)
    const text = said.slice(0, Math.max(20, (out.columns || 80) - 14))
    out.write(`\r\u001b[K${frame}  ${text} ${styleText('dim', `[${seconds} s]`)}`)
  }
  const end = (symbol: string, text: string) => out.write(`\r\u001b[K${symbol}  ${text}\n`)
  out.write(`${styleText('gray', S_BAR)}\n`)
  const timer = setInterval(draw, frameMs)
  try {
    const done = await work((text) => {
      said = text
    })
    end(styleText('green', S_STEP_SUBMIT), done.said)
    return done.value
  } catch (error) {
    end(styleText('red', S_STEP_ERROR), saying)
    throw error
  } finally {
    clearInterval(timer)
  }
}

/** Plain lines, for logs and pipes. */
export function openPlainStage(write: (line: string) => void): Stage {
  return {
    open: (title) => write(`== ${title}`),
    act: (title, text) => write(`\n-- ${title}\n   ${text.replaceAll('\n', '\n   ')}`),
    command: (line) => write(`   $ ${line}`),
    work: async (saying, work) => {
      write(`   ${saying} ...`)
      const { value, said } = await work(() => undefined)
      write(`   ${said}`)
      return value
    },
    fact: (text, kind = 'plain') => write(`   ${marks[kind]} ${text}`),
    card: (title, lines) =>
      write(`\n   ${title}\n${lines.map((line) => `     ${line}`).join('\n')}`),
    ask: async () => true,
    close: (text) => write(`\n${text}`),
  }
}

const marks = { good: '✓', bad: '✗', plain: '·' } as const
