import type { Surroundings } from '#service/open'
import type { Context } from './verb.ts'

/** What the service needs of a command line's context; passwords are asked for where a person sits. */
export function surroundings(context: Context): Surroundings {
  const { env, log, signal } = context
  return { env, log, signal, ask: process.stdin.isTTY ? askPassword : undefined }
}

async function askPassword(question: string): Promise<string> {
  const { isCancel, password } = await import('@clack/prompts')
  const { Fault } = await import('#base/faults')
  const answer = await password({ message: question, output: process.stderr })
  if (isCancel(answer)) throw new Fault('interrupted', 'read the password: cancelled')
  return answer
}
