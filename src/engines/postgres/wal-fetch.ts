// What restore_command runs for each WAL file that is not laid ready: keep it small, its start is paid for every time.
import { open, rm } from 'node:fs/promises'
import { connect } from 'node:net'

/** Exit codes that the server understands: above 125 ends the recovery instead of taking the log for finished. */
export const fetched = 0
export const notThere = 1
export const trouble = 126

const answerFound = 0x46
const answerNone = 0x4e
const headBytes = 9

/**
 * Asks the restore that listens at `socketPath` for a WAL or history file and writes it to `destination`.
 * The question is the name and a newline. The answer is `F`, eight bytes of length (big-endian) and the file;
 * `N` when there is none; `E` and words when something failed. Returns the exit code, and says on stderr what failed.
 */
export async function fetchWal(
  socketPath: string,
  name: string,
  destination: string,
): Promise<number> {
  try {
    const socket = connect(socketPath)
    socket.write(`${name}\n`)
    return await receive(socket, name, destination)
  } catch (error) {
    process.stderr.write(`redoubt wal-fetch ${name}: ${String(error)}\n`)
    await rm(destination, { force: true })
    return trouble
  }
}

async function receive(
  answer: AsyncIterable<Buffer>,
  name: string,
  destination: string,
): Promise<number> {
  let head: Buffer = Buffer.alloc(0)
  let left = -1
  let file: Awaited<ReturnType<typeof open>> | undefined
  try {
    for await (const chunk of answer) {
      let bytes = chunk
      if (left < 0) {
        head = Buffer.concat([head, chunk])
        if (head[0] !== answerFound || head.length < headBytes) continue
        left = Number(head.readBigUInt64BE(1))
        file = await open(destination, 'w', 0o600)
        bytes = head.subarray(headBytes)
      }
      await file?.writeFile(bytes)
      left -= bytes.length
    }
  } finally {
    await file?.close()
  }
  if (left === 0) return fetched
  if (left < 0 && head[0] === answerNone && head.length === 1) return notThere
  const said = head[0] === answerFound ? 'the answer was cut off' : head.toString('utf8', 1)
  throw new Error(`${name}: ${said || 'no answer'}`)
}

if (import.meta.main) {
  const [socketPath = '', name = '', destination = ''] = process.argv.slice(2)
  process.exitCode = await fetchWal(socketPath, name, destination)
}
