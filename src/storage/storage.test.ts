import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openFsStorage } from './fs/fs.ts'
import { MemStorage } from './mem/mem.ts'
import type { Storage } from './storage.ts'
import { storageSuite } from './storage.suite.ts'
import { withFaults, type OperationKind } from './wrap/fault.ts'
import { withLimit } from './wrap/limit.ts'
import { withRetry } from './wrap/retry.ts'

const folder = mkdtempSync(join(tmpdir(), 'redoubt-storage-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

let stores = 0
const openFs = () => openFsStorage(join(folder, `store-${++stores}`), { create: true })

storageSuite('mem', async () => new MemStorage())
storageSuite('mem without conditions', async () => {
  return new MemStorage({ conditionalPut: false, retention: false })
})
storageSuite('fs', openFs)
storageSuite('mem with a limit', async () => {
  return withLimit(new MemStorage(), { uploadBytesPerSecond: 1e9, downloadBytesPerSecond: 1e9 })
})

let seed = 0
/** A fifth of all calls fails; a stream that is put cannot be repeated from outside. */
const faulty = (storage: Storage): Storage => {
  const hits = (kind: OperationKind) => kind !== 'putStream'
  const faults = withFaults(storage, { seed: ++seed, rate: 0.2, hits })
  return withRetry(faults, { triesMax: 30, firstDelayMs: 0, delayMaxMs: 0 })
}
storageSuite('mem with faults and retry', async () => faulty(new MemStorage()))
storageSuite('fs with faults and retry', async () => faulty(await openFs()))
