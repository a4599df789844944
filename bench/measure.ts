import { execFileSync, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'

/** What one run of a program cost. */
export type Cost = {
  readonly wallMs: number
  /** User and system time of the process and all that it waited for. */
  readonly cpuMs: number
  /** Highest resident memory of the process itself. */
  readonly peakBytes: number
  readonly stdout: string
}

const sampleMs = 20

/**
 * Runs a program to its end and measures it. The shell's own `times` gives the CPU time of everything below it;
 * the peak of the memory is what the kernel last said before the process ended.
 */
export async function measure(
  command: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Cost> {
  const begun = performance.now()
  const child = spawn('sh', ['-c', '"$@"; status=$?; times >&3; exit $status', 'sh', ...command], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
  })
  const output = ['', '', '']
  for (const [i, stream] of [child.stdout, child.stderr, child.stdio[3]].entries()) {
    stream?.on('data', (bytes: Buffer) => {
      output[i] += bytes.toString()
    })
  }
  let peakBytes = 0
  const timer = setInterval(() => {
    peakBytes = Math.max(peakBytes, peakOfChild(child.pid ?? 0))
  }, sampleMs)
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  clearInterval(timer)
  const wallMs = performance.now() - begun
  if (code !== 0) throw new Error(`${command.join(' ')} ended with ${code}: ${output[1]}`)
  return { wallMs, cpuMs: childCpuMs(output[2] ?? ''), peakBytes, stdout: output[0] ?? '' }
}

/**
 * Makes the system touch so much memory and gives it back at once. On a virtual machine whose host takes free pages away,
 * the first to write that much pays for getting them again, up to twice the CPU of whoever comes next: done before each
 * run that writes much, all find the same.
 */
export function warmMemory(sizeBytes: number): void {
  const touch = `for (let left = ${sizeBytes}, all = []; left > 0; left -= 2 ** 28) all.push(Buffer.alloc(2 ** 28, 1))`
  execFileSync(process.execPath, ['-e', touch])
}

// The second line of `times` is that of the children: `0m1.230s 0m0.450s`.
function childCpuMs(times: string): number {
  const fields = (times.split('\n')[1] ?? '').split(' ')
  return fields.reduce((sum, field) => {
    const match = /^(\d+)m([\d.]+)s$/.exec(field)
    return match ? sum + Number(match[1]) * 60_000 + Number(match[2]) * 1000 : sum
  }, 0)
}

function peakOfChild(shell: number): number {
  try {
    const [child] = readFileSync(`/proc/${shell}/task/${shell}/children`, 'utf8').split(' ')
    const status = readFileSync(`/proc/${child}/status`, 'utf8')
    return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024
  } catch {
    // It has ended between two looks.
    return 0
  }
}
