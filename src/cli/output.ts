import { Fault, fromSystem } from '#base/faults'

/** As a shell says of a program that SIGPIPE ended. */
const exitBrokenPipe = 141

/** Watches over stdout: whoever read it may go away, or the file behind it may be full. */
export type Output = {
  /** Aborts when nothing can be written any more. */
  readonly signal: AbortSignal
  /** The exit code, once nothing can be written any more. */
  exitCode(): number | undefined
}

/**
 * Nobody reads on (`| head`): that ends the verb without a word. Any other failure is said. What stderr cannot take is
 * lost: there is nowhere to say so. For the whole life of the process.
 */
export function watchOutput(): Output {
  const gone = new AbortController()
  let code: number | undefined
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (code !== undefined) return
    const isClosed = error.code === 'EPIPE'
    code = isClosed ? exitBrokenPipe : 1
    // It may come when all is done and the exit code is set.
    process.exitCode = code
    const fault = fromSystem(error, 'write to stdout')
    if (!isClosed) process.stderr.write(`redoubt: ${String((fault as Error).message)}\n`)
    gone.abort(new Fault('interrupted', 'write to stdout: nobody reads it', { cause: error }))
  })
  process.stderr.on('error', () => undefined)
  return { signal: gone.signal, exitCode: () => code }
}
