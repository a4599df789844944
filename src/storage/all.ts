import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Fault } from '#base/faults'
import { defaultRetry, type RetryPolicy } from '#base/retry'
import { openFsStorage } from './fs/fs.ts'
import { MemStorage } from './mem/mem.ts'
import type { Storage } from './storage.ts'
import { type Limits, withLimit } from './wrap/limit.ts'
import { withRetry } from './wrap/retry.ts'

export type StorageOptions = {
  readonly signal?: AbortSignal | undefined
  /** Make the folder of a `file:` store that shall begin; a bucket is never made. */
  readonly create?: boolean | undefined
  /** `defaultRetry` when left out; false for none. */
  readonly retry?: RetryPolicy | false | undefined
  readonly limits?: Limits | undefined
  /** For S3, instead of the usual AWS variables and files. */
  readonly credentials?:
    | {
        readonly accessKeyId: string
        readonly secretAccessKey: string
        readonly sessionToken?: string | undefined
      }
    | undefined
}

type Factory = (url: string, options: StorageOptions) => Promise<Storage>

const once: RetryPolicy = { ...defaultRetry, triesMax: 1 }

const factories: Readonly<Record<string, Factory>> = {
  file: (url, { create }) => openFsStorage(parseFileUrl(url), { create }),
  mem: async () => new MemStorage(),
  // The client is large: who backs up to a disk does not load it.
  s3: async (url, { credentials, retry, signal }) => {
    const { openS3Storage } = await import('./s3/s3.ts')
    return openS3Storage(url, { credentials, retry: retry === false ? once : retry, signal })
  },
}

/**
 * Opens the object storage of a URL: `file:///path`, a bare path, `s3://bucket/prefix?endpoint=..`,
 * or `mem:`, which is empty each time. Throws `usage` for a URL that makes no sense, `missing` for
 * a folder or bucket that is not there.
 */
export async function openStorage(url: string, options: StorageOptions = {}): Promise<Storage> {
  options.signal?.throwIfAborted()
  const scheme = /^([A-Za-z][A-Za-z0-9+.-]*):/.exec(url)?.[1]?.toLowerCase()
  const factory = scheme === undefined ? factories['file'] : factories[scheme]
  if (!factory || url === '') {
    const known = Object.keys(factories).join(', ')
    const shown = JSON.stringify(withoutSecrets(url))
    throw new Fault('usage', `open storage ${shown}: ${scheme ? 'unknown scheme' : 'no URL'}`, {
      hint: `Give a path, or a URL of one of ${known}.`,
    })
  }
  const storage = await factory(url, options)
  const limited = options.limits ? withLimit(storage, options.limits) : storage
  return options.retry === false ? limited : withRetry(limited, options.retry)
}

function parseFileUrl(url: string): string {
  if (!/^file:/i.test(url)) return resolve(url)
  const parsed = URL.canParse(url) ? new URL(url) : undefined
  if (!parsed || !/^file:\/\/\//i.test(url) || parsed.search !== '' || parsed.hash !== '') {
    throw new Fault('usage', `open storage ${JSON.stringify(url)}: not of the form file:///path`)
  }
  try {
    return fileURLToPath(parsed)
  } catch (error) {
    const shown = JSON.stringify(url)
    throw new Fault('usage', `open storage ${shown}: not a path`, { cause: error })
  }
}

/** A URL of a scheme that we do not know may still hold a password. */
function withoutSecrets(url: string): string {
  return url.replace(/\/\/[^/]*@/, '//...@')
}
