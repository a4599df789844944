import type { Log } from '#base/log'

/** Works with something opened, and closes it. A server that went away cannot be closed well: what failed first is told. */
export async function closing<T extends AsyncDisposable, Result>(
  opened: T,
  log: Log,
  work: (opened: T) => Promise<Result>,
): Promise<Result> {
  let result: Result
  try {
    result = await work(opened)
  } catch (error) {
    await closeAfterFailure(opened, log)
    throw error
  }
  await opened[Symbol.asyncDispose]()
  return result
}

export async function closeAfterFailure(opened: AsyncDisposable, log: Log): Promise<void> {
  try {
    await opened[Symbol.asyncDispose]()
  } catch (error) {
    log.debug(`closes behind a failure: ${error instanceof Error ? error.message : String(error)}`)
  }
}
