// One operation of ours on a repository, in a process of its own so that it can be measured:
// repository-run.ts init|backup|restore|check|save REPOSITORY [FOLDER] [COMPRESSION] [WORKERS]
import { readdirSync } from 'node:fs'
import path from 'node:path'
import { backupFiles, restoreFiles } from '#backup/files'
import { eachLimit } from '#base/tasks'
import { openFsStorage } from '#storage/fs'
import type { Repository } from '#vault'
import { checkRepository } from '#vault/repository/check'
import { initRepository, openRepository } from '#vault/repository/open'

const [verb = '', repositoryPath = '', folder = '', compression = 'auto', workers] =
  process.argv.slice(2)
const password = process.env['RESTIC_PASSWORD'] ?? ''
const { signal } = new AbortController()

type Mode = NonNullable<Parameters<Repository['openSaver']>[0]['compression']>
const options = {
  compression: compression as Mode,
  workers: workers === undefined ? undefined : Number(workers),
}

/** The writing part alone, without trees and snapshot. */
async function save(repository: Repository): Promise<void> {
  await repository.loadIndex({ signal })
  await using saver = await repository.openSaver({ signal, ...options })
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true })
  const files = entries.filter((entry) => entry.isFile())
  await eachLimit(files, 256, signal, async (entry) => {
    const file = path.join(entry.parentPath, entry.name)
    await saver.saveContent({ kind: 'path', path: Buffer.from(file) })
  })
  await saver.finish()
}

await using storage = await openFsStorage(repositoryPath, { create: verb === 'init' })
if (verb === 'init') {
  await initRepository(storage, password, { signal })
} else {
  await using repository = await openRepository(storage, password, { signal })
  if (verb === 'save') await save(repository)
  if (verb === 'backup') await backupFiles({ repository, paths: [folder], signal, ...options })
  if (verb === 'restore')
    await restoreFiles({ repository, at: 'latest', directory: folder, signal })
  if (verb === 'check') {
    const report = await checkRepository(repository, { signal, readData: { kind: 'all' } })
    if (report.findings.length > 0) throw new Error(JSON.stringify(report.findings))
  }
}
