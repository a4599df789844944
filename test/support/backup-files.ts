import { openFsStorage } from '#storage/fs'
import { backupFiles } from '#backup/files'
import { openRepository } from '#vault/repository/open'

/**
 * A backup in a process of its own, to be killed: `backup-files.ts REPOSITORY PASSWORD PATH PACKS`. Says a line for each
 * pack that is stored, and stands still behind so many, however late it is killed.
 */
const [repositoryPath = '', password = '', path = '', packsMax = ''] = process.argv.slice(2)
const storage = await openFsStorage(repositoryPath)
const put = storage.put.bind(storage)
let packs = 0
storage.put = async (key, ...rest) => {
  await put(key, ...rest)
  if (!key.startsWith('data/')) return
  packs += 1
  process.stdout.write(`stored ${key}\n`)
  if (packs >= Number(packsMax)) await new Promise((resolve) => setTimeout(resolve, 600_000))
}
const { signal } = new AbortController()
await using repository = await openRepository(storage, password, { signal })
await backupFiles({ repository, paths: [path], hostname: 'host', signal })
