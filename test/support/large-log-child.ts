/**
 * An archiver of large segments in a process of its own, to be killed. Arguments: URL of the vault, file with the
 * archiver state, folder for its spool, where to end.
 */
import { readFileSync } from 'node:fs'
import { openStorage } from '#storage/all'
import { openForArchiving } from '#vault'
import { source } from './archive.ts'
import { largeBlocks } from './large-log.ts'

const [url = '', stateFile = '', stateDirectory = '', until = ''] = process.argv.slice(2)
const { signal } = new AbortController()
const state = readFileSync(stateFile, 'utf8')
const host = await openForArchiving(await openStorage(url), { state, signal })
{
  await using writer = await host.archive.openWriter(source, { signal, stateDirectory })
  for (const block of largeBlocks(Number(writer.end?.at ?? 0), Number(until))) {
    await writer.append(block, { signal })
  }
  await writer.settle({ signal })
}
