import { openFsStorage } from '#storage/fs'
import { backupFiles } from '#backup/files'
import { openRepository } from '#vault/repository/open'

/**
 * A backup in a process of its own, to be killed: `backup-files.ts REPOSITORY PASSWORD PATH`. Says a line for each
 * pack that is stored.
 */
const [repositoryPath = '', password = '', path = ''] = process.argv.slice(2)
const storage = await openFsStorage(repositoryPath)
const put = storage.put.bind(storage)
storage.put = async (key, ...rest) => {
  await put(key, ...rest)
  if (key.startsWith('data/')) process.stdout.write(`stored ${key}\n`)
}
const { signal } = new AbortController()
await using repository = await openRepository(storage, password, { signal })
await backupFiles({ repository, paths: [path], hostname: 'host', signal })
