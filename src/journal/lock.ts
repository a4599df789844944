import { readFileSync } from 'node:fs'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Fault, fromSystem } from '#base/faults'

const fileName = 'journal.lock'
const triesMax = 3

/**
 * Makes this process the only one that writes below a directory. The lock file names a process by id and start time,
 * so that one which died (`kill -9`, a crash of the machine) never blocks the next.
 */
export async function lockDirectory(directory: string): Promise<AsyncDisposable> {
  const path = join(directory, fileName)
  const mine = `${process.pid} ${startTime(process.pid) ?? ''}\n`
  for (let tries = 0; tries < triesMax; tries++) {
    try {
      await writeFile(path, mine, { flag: 'wx', mode: 0o600 })
      return { [Symbol.asyncDispose]: () => rm(path, { force: true }) }
    } catch (error) {
      const fault = fromSystem(error, `lock ${directory}`)
      if (!(fault instanceof Fault) || fault.code !== 'exists') throw fault
    }
    const holder = await readFile(path, 'utf8').catch(() => '')
    const [pid = '', started = ''] = holder.trim().split(' ')
    if (holder !== '' && started === startTime(Number(pid))) {
      throw new Fault('locked', `lock ${directory}: process ${pid} is using it`, {
        hint: 'Stop that process, or give this one another --state directory.',
        recovery: 'stop',
      })
    }
    await rm(path, { force: true })
  }
  throw new Fault('locked', `lock ${directory}: other processes start at the same time`)
}

/** When a process started, in the kernel's ticks (proc(5), stat, field 22); undefined when it is gone. */
function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw fromSystem(error, `look for process ${pid}`)
  }
}
