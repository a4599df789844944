import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { formatSizeBytes } from '#base/bytes'
import { systemTime } from '#base/time'
import { openStorage } from '#storage/all'
import { type BlobSaver, openVault, type Vault } from '#vault'
import { measure } from '../../bench/measure.ts'
import { recordTrial } from '../support/record-trial.ts'
import { home } from '../support/servers/services.ts'

/**
 * The peak memory (VmHWM) of the command line on millions of small files, one directory of them large, and of a saver
 * on a stream of 100 GB that packs small. Each step is a process of its own and must stay below the bound. One JSON
 * line is added to bench/results/. Sizes: REDOUBT_SOAK_FILES, REDOUBT_SOAK_CONTENTS (different ones among them),
 * REDOUBT_SOAK_DIRECTORY (files of the large directory), REDOUBT_SOAK_STREAM_MB; 0 leaves a part out.
 */
const fileCount = Number(process.env['REDOUBT_SOAK_FILES'] ?? 2_000_000)
const contentCount = Number(process.env['REDOUBT_SOAK_CONTENTS'] ?? 1_000_000)
const largeCount = Number(process.env['REDOUBT_SOAK_DIRECTORY'] ?? 100_000)
const streamMb = Number(process.env['REDOUBT_SOAK_STREAM_MB'] ?? 100 * 1024)
const peakMbMax = 512

const password = 'soak'
const launcher = path.join(home, 'redoubt')
const node = path.join(home, 'node_modules/.bin/node')
const { signal } = new AbortController()
type Step = {
  readonly step: string
  readonly peakMb: number
  readonly cpuS: number
  readonly wallS: number
}

const { values } = parseArgs({
  options: { work: { type: 'string' }, vault: { type: 'string', default: '' } },
})
if (values.work === undefined) await runAll()
else await runStream(values.work, values.vault)

async function runAll(): Promise<void> {
  const folder = mkdtempSync(path.join(tmpdir(), 'redoubt-memory-'))
  const steps: Step[] = []
  try {
    if (fileCount > 0) await runFiles(folder, steps)
    if (streamMb > 0) await runStreams(folder, steps)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  const peakMb = Math.max(...steps.map((step) => step.peakMb))
  const sizes = { fileCount, contentCount, largeCount, streamMb }
  recordTrial('memory', { ...sizes, peakMb, steps })
  if (steps.length === 0 || peakMb > peakMbMax) process.exitCode = 1
}

async function runFiles(folder: string, steps: Step[]): Promise<void> {
  const [data, vault, target] = ['data', 'vault', 'target'].map((name) => path.join(folder, name))
  if (!data || !vault || !target) throw new Error('three folders are named')
  makeFiles(data)
  const step = async (name: string, ...words: readonly string[]) =>
    steps.push(await measureStep(name, [launcher, ...words, '--vault', vault, '--quiet']))
  await step('init', 'vault', 'init')
  await step('first backup', 'backup', '--source', data)
  await step('unchanged backup', 'backup', '--source', data)
  await step('list', 'vault', 'ls', 'latest')
  await step('check', 'vault', 'check', '--read-data')
  await step('restore', 'restore', '--at', 'latest', '--to', target)
  rmSync(target, { recursive: true })
  // A third of the contents go, so that packs are rewritten.
  for (let at = 0; at < fileCount; at++) if ((at % contentCount) % 3 === 1) rmSync(fileAt(data, at))
  await step('backup of less', 'backup', '--source', data)
  await step('forget', 'vault', 'forget', '--keep-last', '1')
  await step('prune', 'vault', 'prune', '--grace', '1ms')
  await step('check after prune', 'vault', 'check')
}

function fileAt(data: string, at: number): string {
  const directory = at < largeCount ? 'large' : `${at % 100}/${Math.floor(at / 100) % 20}`
  return path.join(data, directory, `file-${at}.txt`)
}

function makeFiles(data: string): void {
  mkdirSync(path.join(data, 'large'), { recursive: true })
  for (let at = 0; at < 2000; at++) {
    mkdirSync(path.join(data, `${at % 100}/${Math.floor(at / 100) % 20}`), { recursive: true })
  }
  for (let at = 0; at < fileCount; at++) {
    writeFileSync(
      fileAt(data, at),
      `content ${at % contentCount}\n`.repeat(1 + ((at % contentCount) % 9)),
    )
  }
}

async function runStreams(folder: string, steps: Step[]): Promise<void> {
  const vault = path.join(folder, 'streams')
  steps.push(await measureStep('init', [launcher, 'vault', 'init', '--vault', vault]))
  for (const work of ['save', 'save again', 'load', 'check']) {
    const name = `stream of ${formatSizeBytes(streamMb * 2 ** 20)}: ${work}`
    const script = path.join(home, 'test/soak/memory.ts')
    steps.push(await measureStep(name, [node, script, '--work', work, '--vault', vault]))
  }
}

/** Runs the command; what it writes to stdout goes nowhere. */
async function measureStep(name: string, command: readonly string[]): Promise<Step> {
  const env = {
    REDOUBT_VAULT_PASSWORD: password,
    NODE_COMPILE_CACHE: path.join(home, 'build/compile-cache'),
  }
  const quiet = ['sh', '-c', 'exec "$@" >/dev/null', 'sh']
  const cost = await measure([...quiet, ...command], env)
  const { peakBytes, cpuMs, wallMs } = cost
  const step = {
    step: name,
    peakMb: Math.round(peakBytes / 2 ** 20),
    cpuS: Math.round(cpuMs / 100) / 10,
    wallS: Math.round(wallMs / 100) / 10,
  }
  process.stderr.write(`${JSON.stringify(step)}\n`)
  return step
}

/** One step on the stream, in a process of its own. */
async function runStream(work: string, url: string): Promise<void> {
  const storage = await openStorage(url, { signal })
  await using vault = await openVault(storage, { password, signal })
  if (work === 'check') {
    const { checkRepository } = await import('#vault/repository/check')
    const report = await checkRepository(vault.repository, { signal, readData: { kind: 'all' } })
    if (!report.ok) throw new Error(`check: ${JSON.stringify(report.findings.slice(0, 3))}`)
  } else if (work === 'load') await loadStream(vault)
  else await saveStream(vault)
}

async function saveStream({ repository }: Vault): Promise<void> {
  await repository.loadIndex({ signal })
  await using saver: BlobSaver = await repository.openSaver({ signal })
  const content = await saver.saveContent({ kind: 'stream', read: () => stream(streamMb) })
  const { encodeTree } = await import('#vault/repository/tree-codec')
  const times = { mtimeNs: 0n, atimeNs: 0n, ctimeNs: 0n }
  const owner = { uid: 0, gid: 0, inode: 1n, device: 1n, links: 1, xattrs: [] }
  const node = {
    name: Buffer.from('stream'),
    kind: 'file',
    mode: 0o600,
    ...times,
    ...owner,
  } as const
  const { blobs, sizeBytes } = content
  const tree = await saver.saveBlob('tree', encodeTree([{ ...node, sizeBytes, content: blobs }]))
  await saver.finish()
  const time = new Date(systemTime.now()).toISOString()
  await repository.saveSnapshot({ time, tree, paths: ['/stream'] }, { signal })
}

/** Reads the stream back block by block and compares it with what went in. */
async function loadStream({ repository }: Vault): Promise<void> {
  const [snapshot] = await repository.snapshots({ signal })
  await repository.loadIndex({ signal })
  const { decodeTree } = await import('#vault/repository/tree-decoder')
  const tree = await repository.loadBlob('tree', snapshot?.tree ?? '', { signal })
  const [file] = decodeTree(tree, 'the stream')
  const expected = stream(streamMb)[Symbol.asyncIterator]()
  let block = Buffer.alloc(0)
  let size = 0
  for (const id of file?.content ?? []) {
    const chunk = await repository.loadBlob('data', id, { signal })
    for (let at = 0; at < chunk.length; ) {
      if (block.length === 0) block = Buffer.from((await expected.next()).value ?? Buffer.alloc(1))
      const part = Math.min(block.length, chunk.length - at)
      if (block.compare(chunk, at, at + part, 0, part) !== 0)
        throw new Error(`byte ${size}: differs`)
      block = block.subarray(part)
      at += part
      size += part
    }
  }
  if (size !== streamMb * 2 ** 20) throw new Error(`the stream came back with ${size} bytes`)
}

/** Mebibytes of which no two are the same, and which pack to a thirtieth. */
async function* stream(sizeMb: number): AsyncGenerator<Buffer, void, void> {
  const unit = Buffer.alloc(32 * 1024)
  let state = 1
  for (let at = 0; at < unit.length; at += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    unit.writeUInt32LE(state, at)
  }
  const block = Buffer.alloc(2 ** 20, unit)
  for (let number = 0; number < sizeMb; number++) {
    for (let at = 0; at < block.length; at += unit.length) block.writeUInt32LE(number, at)
    yield block
  }
}
