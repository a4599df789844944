/**
 * An archiver in a process of its own, to be killed: appends a log that is known in advance, from where the archive
 * ends, and says each position that became durable. Arguments: URL of the vault, file with the archiver state, folder
 * for its spool, where to end, and `stay` to say -1 there and wait for the kill.
 */
import { readFileSync, writeSync } from 'node:fs'
import { openStorage } from '#storage/all'
import { openForArchiving } from '#vault'
import { FakeLog, source } from './archive.ts'

const [url = '', stateFile = '', stateDirectory = '', until = '', stay = ''] = process.argv.slice(2)
const { signal } = new AbortController()
const log = new FakeLog({ segmentBytes: 60_000 })
const storage = await openStorage(url)
const state = readFileSync(stateFile, 'utf8')
const host = await openForArchiving(storage, { state, signal })
const choices = { signal, stateDirectory, cutAfterMs: 5 }
{
  await using writer = await host.archive.openWriter(source, choices)
  writer.onDurable(({ at }) => writeSync(1, `${Number(at)}\n`))
  const from = Number(writer.end?.at ?? 0)
  let blocks = 0
  for (const block of log.blocks(from, Number(until), 997)) {
    await writer.append(block, { signal })
    blocks += 1
    if (blocks % 4 === 0) await writer.flush({ signal })
  }
  await writer.settle({ signal })
  if (stay !== '') {
    writeSync(1, '-1\n')
    await new Promise((resolve) => setTimeout(resolve, 600_000))
  }
}
