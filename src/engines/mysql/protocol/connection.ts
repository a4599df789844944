import type { Duplex } from 'node:stream'
import mysql from 'mysql2'
import type { Endpoint } from './endpoint.ts'
import { Inlet } from './inlet.ts'

const connectTimeoutMs = 15_000

/** An authenticated connection in the text protocol. */
export type Connection = {
  /** The server's number of it. */
  readonly id: number
  readonly stream: Duplex
  /** Of a plain connection: TLS has its own memory. */
  readonly rows: Inlet | undefined
}

/** Connects and authenticates by the driver, and takes its socket over. */
export async function connect(
  endpoint: Endpoint,
  ssl: Record<string, unknown> | undefined,
  signal: AbortSignal,
): Promise<Connection> {
  signal.throwIfAborted()
  const inlet = ssl ? undefined : new Inlet(endpoint)
  const driver = mysql.createConnection({
    ...(endpoint.socket === undefined
      ? { host: endpoint.host, port: endpoint.port }
      : { socketPath: endpoint.socket }),
    ...(inlet ? { stream: () => inlet.socket } : {}),
    user: endpoint.user,
    password: endpoint.password,
    charset: 'utf8mb4_general_ci',
    connectTimeout: connectTimeoutMs,
    // Else the system's two hours: a server that is gone would be waited for as long.
    keepAliveInitialDelay: 60_000,
    // Queries go out bare: with these the server expects other bytes around them.
    flags: ['-CLIENT_QUERY_ATTRIBUTES', '-SESSION_TRACK', '-IGNORE_SPACE', '-FOUND_ROWS', '-ODBC'],
    connectAttributes: { program_name: 'redoubt' },
    ...(ssl ? { ssl } : {}),
  })
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const abort = () => {
    driver.destroy()
    reject(signal.reason)
  }
  signal.addEventListener('abort', abort, { once: true })
  driver.once('connect', () => resolve())
  // Not once: a connection that failed tells of its end a second time, which nobody waits for any more.
  driver.on('error', reject)
  try {
    await promise
  } catch (error) {
    driver.destroy()
    throw error
  } finally {
    signal.removeEventListener('abort', abort)
  }
  // The driver's types hide the socket; after a TLS handshake this is the encrypted one.
  const { stream, threadId } = driver as unknown as { stream: Duplex; threadId: number }
  return { id: threadId, stream, rows: inlet }
}
