import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { closeSync, existsSync, openSync, readdirSync, rmSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { CreateBucketCommand, ListObjectVersionsCommand, S3Client } from '@aws-sdk/client-s3'
import { servicesFolder } from './services.ts'

const run = promisify(execFile)
const root = join(servicesFolder, 'ceph-rgw')
const startTimeoutMs = 90_000
const startsMax = 2

/** Whether this machine has the gateway's programs. */
export const cephInstalled = existsSync(join(root, 'bin', 'radosgw'))

export type CephOptions = {
  /** `memstore` starts in a second and forgets; `bluestore` lives on disk and survives `kill -9`. */
  readonly store?: 'memstore' | 'bluestore' | undefined
}

/** The id of a key that `sse=aws:kms` may name. */
export const cephKmsKeyId = 'key-1'
const testKey = Buffer.alloc(32, 7).toString('base64')

type Daemon = 'mon' | 'osd' | 'rgw'

/**
 * A real S3 server: Ceph's gateway with one monitor and one OSD, on loopback, in a private folder.
 * Conditional puts, versioning, object lock and quotas work as in production.
 */
export class Ceph implements AsyncDisposable {
  readonly region = 'us-east-1'
  readonly accessKey = 'AK'
  readonly secretKey = 'SKSKSKSK'
  readonly endpoint: string
  readonly port: number
  /** What a child process needs to speak to it. */
  readonly env: Readonly<Record<string, string>>
  readonly #dir: string
  readonly #daemons = new Map<Daemon, ChildProcess>()
  readonly #onExit = () => {
    this.#kill('rgw', 'osd', 'mon')
    rmSync(this.#dir, { recursive: true, force: true })
  }

  private constructor(dir: string, port: number) {
    this.#dir = dir
    this.port = port
    this.endpoint = `http://127.0.0.1:${port}`
    this.env = {
      AWS_ACCESS_KEY_ID: this.accessKey,
      AWS_SECRET_ACCESS_KEY: this.secretKey,
      AWS_REGION: this.region,
      AWS_EC2_METADATA_DISABLED: 'true',
    }
    process.on('exit', this.#onExit)
  }

  static async start(options: CephOptions = {}): Promise<Ceph> {
    for (let starts = 1; ; starts++) {
      const [port, monitorPort] = await freePorts()
      const dir = await mkdtemp(join(tmpdir(), 'redoubt-ceph-'))
      const ceph = new Ceph(dir, port)
      try {
        await ceph.#create(options.store ?? 'memstore', monitorPort)
        return ceph
      } catch (error) {
        await ceph[Symbol.asyncDispose]()
        // Another process may have taken one of the ports between the look and the start.
        if (starts >= startsMax) throw error
      }
    }
  }

  /** The URL of a place in it, as `openStorage` takes it. */
  url(bucket: string, prefix = ''): string {
    const query = `endpoint=${this.endpoint}&region=${this.region}&path-style=1`
    return `s3://${bucket}/${prefix}?${query}`
  }

  client(): S3Client {
    return new S3Client({
      endpoint: this.endpoint,
      region: this.region,
      forcePathStyle: true,
      credentials: { accessKeyId: this.accessKey, secretAccessKey: this.secretKey },
    })
  }

  /** Makes a bucket, of a fresh name unless one is given, and returns its name. */
  async createBucket(
    options: { readonly name?: string; readonly objectLock?: boolean } = {},
  ): Promise<string> {
    const name = options.name ?? `b-${randomUUID().slice(0, 13)}`
    const client = this.client()
    await client.send(
      new CreateBucketCommand({
        Bucket: name,
        ...(options.objectLock ? { ObjectLockEnabledForBucket: true } : {}),
      }),
    )
    client.destroy()
    return name
  }

  /** All versions of all objects of a bucket, delete markers included: what the store really keeps. */
  async versions(bucket: string): Promise<readonly { key: string; marker: boolean }[]> {
    const client = this.client()
    const found = await client.send(new ListObjectVersionsCommand({ Bucket: bucket }))
    client.destroy()
    return [
      ...(found.Versions ?? []).map((version) => ({ key: version.Key ?? '', marker: false })),
      ...(found.DeleteMarkers ?? []).map((marker) => ({ key: marker.Key ?? '', marker: true })),
    ]
  }

  /** Lets a bucket hold no more than that; 0 takes the limit away. */
  async limitBucket(bucket: string, sizeBytes: number): Promise<void> {
    const scope = ['--quota-scope=bucket', `--bucket=${bucket}`]
    await this.admin('quota', 'set', ...scope, `--max-size=${sizeBytes || -1}`)
    await this.admin('quota', sizeBytes > 0 ? 'enable' : 'disable', ...scope)
  }

  /** Adds a storage class beside STANDARD; the gateway starts anew to know it. */
  async addStorageClass(name: string): Promise<void> {
    const placement = ['placement', 'add', '--placement-id=default-placement']
    const storageClass = `--storage-class=${name}`
    await this.admin('zonegroup', ...placement, '--rgw-zonegroup=default', storageClass)
    const pool = `--data-pool=default.rgw.${name.toLowerCase()}.data`
    await this.admin('zone', ...placement, '--rgw-zone=default', storageClass, pool)
    await this.killGateway()
    await this.startGateway()
  }

  /** Runs `radosgw-admin` and returns what it printed. */
  async admin(...args: string[]): Promise<string> {
    const config = ['-c', join(this.#dir, 'ceph.conf')]
    const { stdout } = await run(join(root, 'bin/radosgw-admin'), [...config, ...args])
    return stdout
  }

  /** Ends the gateway with `kill -9`, as a lost machine would; `startGateway` brings it back. */
  async killGateway(): Promise<void> {
    await this.#end('rgw')
  }

  async startGateway(): Promise<void> {
    this.#spawn('rgw', 'radosgw', '-n client.rgw -f')
    await this.#untilUp()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    process.off('exit', this.#onExit)
    // The OSD waits for nobody when it is killed; asked to stop after the monitor has gone it would hang.
    for (const daemon of ['rgw', 'osd', 'mon'] as const) await this.#end(daemon)
    await rm(this.#dir, { recursive: true, force: true })
  }

  async #create(store: 'memstore' | 'bluestore', monitorPort: number): Promise<void> {
    const fsid = randomUUID()
    const [config, monmap, osdmap] = ['ceph.conf', 'monmap', 'osdmap'].map((n) =>
      join(this.#dir, n),
    )
    for (const folder of ['mon', 'osd', 'rgw']) await mkdir(join(this.#dir, folder))
    await writeFile(join(this.#dir, 'keyring'), '')
    await writeFile(
      `${config}`,
      formatConfig({ dir: this.#dir, fsid, store, port: this.port, monitorPort }),
    )
    const address = `[v2:127.0.0.1:${monitorPort}]`
    await tool('monmaptool', `--create --clobber --fsid ${fsid} --addv a ${address} ${monmap}`)
    // Its exit code complains of a crush map that it wrote all the same.
    await tool('osdmaptool', `--createsimple 1 --clobber ${osdmap} --pg-bits 3`).catch(() => '')
    const maps = `--monmap ${monmap} --osdmap ${osdmap} --keyring ${join(this.#dir, 'keyring')}`
    await tool('ceph-mon', `-i a -c ${config} --mkfs ${maps}`)
    this.#spawn('mon', 'ceph-mon', '-i a -f')
    await tool('ceph-osd', `-i 0 -c ${config} --mkfs --osd-uuid ${randomUUID()}`)
    this.#spawn('osd', 'ceph-osd', '-i 0 -f')
    // The user before the gateway: the call waits for the OSD and makes the pools.
    const keys = [`--access-key=${this.accessKey}`, `--secret-key=${this.secretKey}`]
    await this.admin('user', 'create', '--uid=dev', '--display-name=dev', ...keys)
    await this.startGateway()
  }

  #spawn(daemon: Daemon, program: string, options: string): void {
    const output = openSync(join(this.#dir, `${daemon}.out`), 'a')
    const args = [
      join(root, 'bin', program),
      ...options.split(' '),
      '-c',
      join(this.#dir, 'ceph.conf'),
    ]
    // The kernel ends the daemon when the test process dies, however it dies.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...args], {
      stdio: ['ignore', output, output],
    })
    closeSync(output)
    child.unref()
    this.#daemons.set(daemon, child)
  }

  async #untilUp(): Promise<void> {
    const deadline = performance.now() + startTimeoutMs
    while (!(await answers(this.port))) {
      const down = [...this.#daemons].find(([, child]) => child.exitCode !== null)
      if (down || performance.now() > deadline) {
        const daemon = down?.[0] ?? 'rgw'
        const output = await readFile(join(this.#dir, `${daemon}.out`), 'utf8')
        throw new Error(`ceph ${daemon} did not come up: ${output.slice(-2000)}`)
      }
      await sleep(50)
    }
  }

  #kill(...daemons: Daemon[]): void {
    for (const daemon of daemons) this.#daemons.get(daemon)?.kill('SIGKILL')
  }

  async #end(daemon: Daemon): Promise<void> {
    const child = this.#daemons.get(daemon)
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.ref()
    child.kill('SIGKILL')
    await ended
  }
}

let shared: Promise<Ceph> | undefined

/** One throw-away gateway for the whole test process; it ends with the process. */
export function sharedCeph(): Promise<Ceph> {
  shared ??= Ceph.start()
  return shared
}

async function tool(name: string, options: string): Promise<string> {
  const { stdout } = await run(join(root, 'bin', name), options.split(' '))
  return stdout
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}

async function freePorts(): Promise<readonly [number, number]> {
  const servers = [createServer(), createServer()]
  const ports: number[] = []
  for (const server of servers) {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const address = server.address()
    if (address && typeof address === 'object') ports.push(address.port)
  }
  for (const server of servers) server.close()
  const [first = 0, second = 0] = ports
  return [first, second]
}

/** The library folder of the unpacked packages: its name holds the processor's architecture. */
function libraryDir(): string {
  const base = join(root, 'root/usr/lib')
  const found = readdirSync(base).find((name) => existsSync(join(base, name, 'rados-classes')))
  if (!found) throw new Error(`no ceph libraries in ${base}: run ./check once, it fetches them`)
  return join(base, found)
}

/** A cluster of one: no authentication within, one replica, map changes published at once. */
function formatConfig(facts: {
  readonly dir: string
  readonly fsid: string
  readonly store: string
  readonly port: number
  readonly monitorPort: number
}): string {
  const { dir, fsid, store, port, monitorPort } = facts
  const libraries = libraryDir()
  return `[global]
fsid = ${fsid}
mon_initial_members = a
mon_host = v2:127.0.0.1:${monitorPort}
ms_bind_ipv6 = false
ms_bind_msgr1 = false
public_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
# The gateway demands an encrypted connection to the monitor, which takes authentication.
ms_mon_client_mode = crc
ms_mon_cluster_mode = crc
ms_mon_service_mode = crc
keyring = ${dir}/keyring
run_dir = ${dir}
admin_socket = ${dir}/$name.asok
log_file = ${dir}/$name.log
pid_file = ${dir}/$name.pid
plugin_dir = ${libraries}/ceph
erasure_code_dir = ${libraries}/ceph/erasure-code
osd_class_dir = ${libraries}/rados-classes
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 2000
mon_cluster_log_to_file = false
mon_data = ${dir}/mon
mon_data_avail_crit = 1
mon_data_avail_warn = 2
# The monitor's default of a second between map changes is most of the start.
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
osd_data = ${dir}/osd
osd_objectstore = ${store}
memstore_device_bytes = 4294967296
bluestore_block_size = 10737418240
bluestore_block_create = true
osd_memory_target = 1073741824
osd_heartbeat_grace = 600
# A gateway that was killed is waited for no longer than this before the next one may change a bucket.
osd_client_watch_timeout = 2
rgw_data = ${dir}/rgw
# Without it each small answer waits 40 ms for a delayed acknowledgement.
rgw_frontends = beast endpoint=127.0.0.1:${port} tcp_nodelay=1
rgw_enable_apis = s3, admin
rgw_relaxed_s3_bucket_names = true
# Encryption by the server with a key of this file, over plain HTTP: for tests alone.
rgw_crypt_require_ssl = false
rgw_crypt_s3_kms_backend = testing
rgw_crypt_s3_kms_encryption_keys = ${cephKmsKeyId}=${testKey}
# Quotas hold at once, not after ten minutes of cached sums.
rgw_bucket_quota_ttl = 0
`
}
