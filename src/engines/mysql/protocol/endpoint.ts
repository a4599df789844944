import { readFileSync } from 'node:fs'
import { Fault, fromSystem } from '#base/faults'

/** How to reach one server of the MySQL family. */
export type Endpoint = {
  readonly host: string
  readonly port: number
  /** A local socket instead of host and port. */
  readonly socket?: string | undefined
  readonly user: string
  readonly password: string
  readonly tls: TlsMode
  readonly caFile?: string | undefined
  readonly certFile?: string | undefined
  readonly keyFile?: string | undefined
  /** For messages: no credentials in it. */
  readonly shown: string
}

/** As the stock clients' `ssl-mode`. */
export type TlsMode = 'disabled' | 'preferred' | 'required' | 'verify-ca' | 'verify-identity'

const modes: readonly string[] = [
  'disabled',
  'preferred',
  'required',
  'verify-ca',
  'verify-identity',
] satisfies TlsMode[]

const settings = new Set(['ssl-mode', 'ssl-ca', 'ssl-cert', 'ssl-key', 'socket'])

/** Reads `mysql://user:password@host:port/?ssl-mode=...&ssl-ca=...&ssl-cert=...&ssl-key=...&socket=...`. */
export function parseEndpoint(text: string): Endpoint {
  const url = parseUrl(text)
  for (const name of url.searchParams.keys()) {
    if (!settings.has(name)) {
      throw new Fault('usage', `read source URL: unknown setting ${name}`, {
        hint: `Known settings are ${[...settings].join(', ')}.`,
      })
    }
  }
  const host = url.hostname.replace(/^\[|\]$/g, '') || '127.0.0.1'
  const port = url.port === '' ? 3306 : Number(url.port)
  const socket = url.searchParams.get('socket') ?? undefined
  return {
    host,
    port,
    socket,
    user: decode(url.username) || 'root',
    password: decode(url.password),
    tls: tlsMode(url.searchParams.get('ssl-mode'), socket !== undefined || isLoopback(host)),
    caFile: url.searchParams.get('ssl-ca') ?? undefined,
    certFile: url.searchParams.get('ssl-cert') ?? undefined,
    keyFile: url.searchParams.get('ssl-key') ?? undefined,
    shown: `${url.protocol}//${socket ?? `${url.hostname || host}:${port}`}`,
  }
}

function parseUrl(text: string): URL {
  try {
    return new URL(text)
  } catch (error) {
    throw new Fault('usage', 'read source URL: it is no URL', {
      hint: 'Write mysql://user:password@host:port/ with special characters percent-encoded.',
      cause: new Error((error as Error).name),
    })
  }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch (error) {
    throw new Fault('usage', 'read source URL: a percent sign is not followed by two hex digits', {
      cause: new Error((error as Error).name),
    })
  }
}

function tlsMode(text: string | null, local: boolean): TlsMode {
  if (text === null) return local ? 'disabled' : 'preferred'
  const mode = text.toLowerCase().replace('_', '-')
  if (modes.includes(mode)) return mode as TlsMode
  throw new Fault('usage', `read source URL: unknown ssl-mode ${text}`, {
    hint: `It is one of ${modes.join(', ')}.`,
  })
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host.startsWith('127.')
}

/** The driver's TLS options; undefined for a plain connection. */
export function tlsOptions(endpoint: Endpoint): Record<string, unknown> | undefined {
  if (endpoint.tls === 'disabled') return undefined
  const verify = endpoint.tls === 'verify-ca' || endpoint.tls === 'verify-identity'
  return {
    rejectUnauthorized: verify,
    verifyIdentity: endpoint.tls === 'verify-identity',
    ...file('ca', endpoint.caFile),
    ...file('cert', endpoint.certFile),
    ...file('key', endpoint.keyFile),
  }
}

function file(name: string, path: string | undefined): Record<string, Buffer> {
  if (path === undefined) return {}
  try {
    return { [name]: readFileSync(path) }
  } catch (error) {
    throw fromSystem(error, `read TLS file ${path}`)
  }
}
