import type { ChildProcess } from 'node:child_process'
import {
  AbortMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3Client,
} from '@aws-sdk/client-s3'
import { eachLimit } from '#base/tasks'
import { openStorage } from '#storage/all'
import { HttpFaultProxy, type SeenRequest } from '../http-fault-proxy.ts'
import { createProbedBucket } from '../probed-bucket.ts'
import type { Ceph } from '../servers/ceph.ts'
import { type CrashAt, startCommand } from './command.ts'
import { LocalSide, type Place, shapeOf } from './places.ts'
import type { VaultWorld } from './vault-world.ts'

const requestsAtOnce = 8
const signal = new AbortController().signal

type Kept = ReadonlyMap<string, { readonly tag: string; readonly bytes: Uint8Array }>

/**
 * Vaults in a bucket. Each request is an operation, and what kills a command stands between it and the store: before
 * the request arrives, with half of its body, or when the store has done the work and nobody has been told.
 */
export class BucketPlace extends LocalSide implements Place, AsyncDisposable {
  readonly url: string
  readonly #ceph: Ceph
  readonly #client: S3Client
  readonly #bucket: string
  readonly #proxy: HttpFaultProxy
  #kept: Kept = new Map()

  private constructor(
    world: VaultWorld,
    name: string,
    store: { readonly ceph: Ceph; readonly bucket: string; readonly proxy: HttpFaultProxy },
  ) {
    super(world, name, store.ceph.env)
    this.#ceph = store.ceph
    this.#client = store.ceph.client()
    this.#bucket = store.bucket
    this.#proxy = store.proxy
    this.url = this.sibling('vault')
  }

  static async begin(world: VaultWorld, name: string): Promise<BucketPlace> {
    const { ceph, bucket } = await createProbedBucket()
    // What looks at the vault in this process finds its way in as a user's command does.
    Object.assign(process.env, ceph.env)
    const proxy = await HttpFaultProxy.start({ port: ceph.port })
    const place = new BucketPlace(world, name, { ceph, bucket, proxy })
    await using from = await openStorage(world.vault)
    await using to = await openStorage(place.url)
    const objects = await Array.fromAsync(from.list(''))
    await eachLimit(objects, requestsAtOnce, signal, async ({ key }) =>
      to.put(key, await from.get(key)),
    )
    return place
  }

  sibling(name: string): string {
    const url = this.#ceph.url(this.#bucket, name)
    return url.replace(this.#ceph.endpoint, this.#proxy.endpoint)
  }

  async keep(): Promise<void> {
    this.keepState()
    const kept = new Map<string, { tag: string; bytes: Uint8Array }>()
    const tags = await this.#list()
    await eachLimit([...tags], requestsAtOnce, signal, async ([Key, tag]) => {
      const { Body } = await this.#client.send(new GetObjectCommand({ Bucket: this.#bucket, Key }))
      kept.set(Key, { tag, bytes: (await Body?.transformToByteArray()) ?? Buffer.alloc(0) })
    })
    this.#kept = kept
  }

  async reset(): Promise<void> {
    this.resetState()
    const now = await this.#list()
    const Bucket = this.#bucket
    const gone = [...this.#kept].filter(([key, { tag }]) => now.get(key) !== tag)
    await eachLimit(gone, requestsAtOnce, signal, async ([Key, { bytes }]) => {
      await this.#client.send(new PutObjectCommand({ Bucket, Key, Body: bytes }))
    })
    const more = [...now.keys()].filter((key) => !this.#kept.has(key))
    await eachLimit(more, requestsAtOnce, signal, async (Key) => {
      await this.#client.send(new DeleteObjectCommand({ Bucket, Key }))
    })
    for (const { Key, UploadId } of await this.#uploads()) {
      await this.#client.send(new AbortMultipartUploadCommand({ Bucket, Key, UploadId }))
    }
  }

  async changes(): Promise<string[]> {
    const now = await this.#list()
    const changed: string[] = []
    for (const [key, tag] of now) {
      const known = this.#kept.get(key)
      if (known === undefined) changed.push(`+ ${shapeOfKey(key)}`)
      else if (known.tag !== tag) changed.push(`~ ${key}`)
    }
    for (const key of this.#kept.keys()) if (!now.has(key)) changed.push(`- ${key}`)
    for (const { Key = '' } of await this.#uploads()) changed.push(`upload ${shapeOfKey(Key)}`)
    return changed.sort()
  }

  start(args: readonly string[], crash?: CrashAt): ChildProcess {
    this.#proxy.seen.length = 0
    const child = startCommand(args, this.env)
    const kill = () => void child.kill('SIGKILL')
    this.#proxy.rule = ({ index }) =>
      index === crash?.at ? { kind: 'call', when: crash.moment, call: kill } : undefined
    // What looks at the vault afterwards is not counted on.
    child.once('exit', () => (this.#proxy.rule = () => undefined))
    return child
  }

  async count(args: readonly string[], use: (child: ChildProcess) => Promise<void>) {
    await use(this.start(args))
    return this.#proxy.seen.map((request) => describe(request, this.#bucket))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.destroy()
    await this.#proxy[Symbol.asyncDispose]()
  }

  async #list(): Promise<Map<string, string>> {
    const tags = new Map<string, string>()
    for (let token: string | undefined, more = true; more; ) {
      const page = await this.#client.send(
        new ListObjectsV2Command({ Bucket: this.#bucket, ContinuationToken: token }),
      )
      for (const { Key = '', ETag = '' } of page.Contents ?? []) tags.set(Key, ETag)
      token = page.NextContinuationToken
      more = token !== undefined
    }
    return tags
  }

  async #uploads() {
    const asked = new ListMultipartUploadsCommand({ Bucket: this.#bucket })
    return (await this.#client.send(asked)).Uploads ?? []
  }
}

function shapeOfKey(key: string): string {
  const slash = key.indexOf('/')
  return shapeOf(key.slice(0, slash), key.slice(slash + 1))
}

/** A request as an operation: `put` where bytes are sent, `post` where only a word is. */
function describe({ method, path, headers }: SeenRequest, bucket: string): string {
  const { pathname, searchParams } = new URL(path, 'http://store')
  const key = decodeURIComponent(pathname).replace(`/${bucket}/`, '').replace(`/${bucket}`, '')
  const list = searchParams.get('prefix')
  if (method === 'GET' && list !== null) return `list ${list}`
  if (method === 'PUT') return `${headers['content-length'] === '0' ? 'post' : 'put'} ${key}`
  const kinds: Readonly<Record<string, string>> = { GET: 'get', HEAD: 'stat', DELETE: 'delete' }
  return `${kinds[method] ?? 'post'} ${key}`
}
