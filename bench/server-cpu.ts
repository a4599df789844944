import { readFileSync } from 'node:fs'

const ticksPerSecond = 100

/** CPU time of a process and all below it, those that have ended included, in milliseconds (proc(5), stat). */
export function cpuOfTree(pid: number): number {
  let stat: string
  let children: string
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1')
  } catch {
    // It ended between two looks; its parent counts it then.
    return 0
  }
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const own = fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0)
  const below = children.split(' ').filter((child) => child.trim() !== '')
  return (
    (own / ticksPerSecond) * 1000 + below.reduce((sum, child) => sum + cpuOfTree(Number(child)), 0)
  )
}
