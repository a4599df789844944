import { spawn } from 'node:child_process'
import path from 'node:path'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { service } from './services.ts'

export type ToolOptions = {
  readonly input?: Uint8Array | string | undefined
  readonly env?: NodeJS.ProcessEnv | undefined
  readonly cwd?: string | undefined
  /** Exit codes that are no failure; 0 alone unless told. */
  readonly codes?: readonly number[] | undefined
  readonly limitMs?: number | undefined
}

export type ToolResult = {
  readonly code: number
  readonly stdout: Buffer
  readonly stderr: string
}

/**
 * Runs a stock tool of a fetched service (`runTool('age@bookworm', 'age', ['-d', ...])`) to its end.
 * Throws with what it said when it ends with another code than expected.
 */
export async function runTool(
  serviceName: string,
  program: string,
  args: readonly string[],
  options: ToolOptions = {},
): Promise<ToolResult> {
  const { bin } = await service(serviceName)
  return runProgram(path.join(bin, program), args, options)
}

/** Runs any program to its end, as `runTool`. */
export async function runProgram(
  program: string,
  args: readonly string[],
  options: ToolOptions = {},
): Promise<ToolResult> {
  const { input = '', env, cwd, codes = [0], limitMs = 600_000 } = options
  const child = spawn(program, args, {
    cwd,
    env: { ...process.env, ...env },
    signal: AbortSignal.timeout(limitMs),
    killSignal: 'SIGKILL',
  })
  const ended = new Promise<number | string>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => resolve(code ?? signal ?? 'nothing'))
  })
  const fed = pipeline([Buffer.from(input)], child.stdin).catch((error: unknown) => {
    // A program that does not want its input has closed the pipe.
    if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error
  })
  const [code, stdout, stderr] = await Promise.all([
    ended,
    buffer(child.stdout),
    buffer(child.stderr),
    fed,
  ])
  if (typeof code !== 'number' || !codes.includes(code)) {
    const said = `${stderr.toString()}${stdout.toString('utf8', 0, 2000)}`
    throw new Error(`${path.basename(program)} ${args.join(' ')} ended with ${code}: ${said}`)
  }
  return { code, stdout, stderr: stderr.toString() }
}
