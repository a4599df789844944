import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { CreateBucketCommand, ListObjectVersionsCommand, S3Client } from '@aws-sdk/client-s3'
import {
  asServerUser,
  freePort,
  giveToServerUser,
  runAsServerUser,
  ServerProcess,
  untilReady,
} from './process.ts'
import { service, type Service } from './services.ts'

const run = promisify(execFile)
const startsMax = 4
const adminLimitMs = 300_000

export type CephOptions = {
  /**
   * `memstore` starts in a second and forgets; `bluestore` lives on disk and survives `kill -9`.
   */
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
  readonly #service: Service
  readonly #daemons = new Map<Daemon, ServerProcess>()
  /** The daemons die with this process; what they leave on disk goes here. */
  readonly #onExit = () => rmSync(this.#dir, { recursive: true, force: true })

  private constructor(programs: Service, dir: string, port: number) {
    this.#service = programs
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
    const programs = await service('ceph-rgw')
    for (let starts = 1; ; starts++) {
      const [port, monitorPort] = [await freePort(), await freePort()]
      const dir = await mkdtemp(join(tmpdir(), 'redoubt-ceph-'))
      const ceph = new Ceph(programs, dir, port)
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

  /**
   * All versions of all objects of a bucket, delete markers included: what the store really keeps.
   */
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
    const command = [join(this.#service.bin, 'radosgw-admin'), ...config, ...args]
    const { stdout } = await run(...asServerUser(command), {
      cwd: '/',
      // It waits for a cluster that may never come up.
      timeout: adminLimitMs,
      killSignal: 'SIGKILL',
    })
    return stdout
  }

  /** Ends the gateway with `kill -9`, as a lost machine would; `startGateway` brings it back. */
  async killGateway(): Promise<void> {
    await this.#daemons.get('rgw')?.kill9()
  }

  async startGateway(): Promise<void> {
    this.#spawn('rgw', 'radosgw', '-n client.rgw -f')
    await this.#untilUp()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    process.off('exit', this.#onExit)
    // The OSD waits for nobody when it is killed; asked to stop after the monitor has gone it would
    // hang.
    for (const daemon of ['rgw', 'osd', 'mon'] as const) await this.#daemons.get(daemon)?.kill9()
    await rm(this.#dir, { recursive: true, force: true })
  }

  async #create(store: 'memstore' | 'bluestore', monitorPort: number): Promise<void> {
    const dir = this.#dir
    const fsid = randomUUID()
    for (const folder of ['mon', 'osd', 'rgw']) await mkdir(join(dir, folder))
    await writeFile(join(dir, 'keyring'), '')
    const libraries = libraryDir(this.#service.root)
    const config = formatConfig({ dir, fsid, store, port: this.port, monitorPort, libraries })
    await writeFile(join(dir, 'ceph.conf'), config)
    giveToServerUser(dir)
    const address = `[v2:127.0.0.1:${monitorPort}]`
    const [monmap, osdmap] = [join(dir, 'monmap'), join(dir, 'osdmap')]
    this.#tool('monmaptool', `--create --clobber --fsid ${fsid} --addv a ${address} ${monmap}`)
    try {
      this.#tool('osdmaptool', `--createsimple 1 --clobber ${osdmap} --pg-bits 3`)
    } catch (error) {
      // Its exit code complains of the crush map of a file that it wrote all the same.
      if (!existsSync(osdmap)) throw error
    }
    const maps = `--monmap ${monmap} --osdmap ${osdmap} --keyring ${join(dir, 'keyring')}`
    this.#tool('ceph-mon', `-i a -c ${join(dir, 'ceph.conf')} --mkfs ${maps}`)
    this.#spawn('mon', 'ceph-mon', '-i a -f')
    const osd = `--mkfs --osd-uuid ${randomUUID()}`
    this.#tool('ceph-osd', `-i 0 -c ${join(dir, 'ceph.conf')} ${osd}`)
    this.#spawn('osd', 'ceph-osd', '-i 0 -f')
    // The user before the gateway: the call waits for the OSD and makes the pools.
    const keys = [`--access-key=${this.accessKey}`, `--secret-key=${this.secretKey}`]
    await this.admin('user', 'create', '--uid=dev', '--display-name=dev', ...keys)
    await this.startGateway()
  }

  #tool(name: string, options: string): void {
    runAsServerUser([join(this.#service.bin, name), ...options.split(' ')])
  }

  #spawn(daemon: Daemon, program: string, options: string): void {
    const config = ['-c', join(this.#dir, 'ceph.conf')]
    const command = [join(this.#service.bin, program), ...options.split(' '), ...config]
    this.#daemons.set(daemon, new ServerProcess(command, join(this.#dir, `${daemon}.out`)))
  }

  async #untilUp(): Promise<void> {
    const gateway = this.#daemons.get('rgw')
    if (!gateway) throw new Error('no gateway was started')
    try {
      await untilReady(gateway, () => answers(this.port))
    } catch (error) {
      const output = await readFile(join(this.#dir, 'rgw.out'), 'utf8')
      throw new Error(`ceph's gateway did not come up: ${output.slice(-2000)}`, { cause: error })
    }
  }
}

let shared: Promise<Ceph> | undefined

/** One throw-away gateway for the whole test process; it ends with the process. */
export function sharedCeph(): Promise<Ceph> {
  shared ??= Ceph.start()
  return shared
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

/** The library folder of the unpacked packages: its name holds the processor's architecture. */
function libraryDir(root: string): string {
  const base = join(root, 'usr/lib')
  const found = readdirSync(base).find((name) => existsSync(join(base, name, 'rados-classes')))
  if (!found) throw new Error(`no ceph libraries in ${base}`)
  return join(base, found)
}

/** A cluster of one: no authentication within, one replica, map changes published at once. */
function formatConfig(facts: {
  readonly dir: string
  readonly fsid: string
  readonly store: string
  readonly port: number
  readonly monitorPort: number
  readonly libraries: string
}): string {
  const { dir, fsid, store, port, monitorPort, libraries } = facts
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
