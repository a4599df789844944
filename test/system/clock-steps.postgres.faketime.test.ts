import { test } from 'node:test'
import { archiverClockTrial } from '../support/moment-trials.ts'
import { FolderLandings, makeNumbers } from '../support/numbers.ts'
import { startPostgres } from '../support/servers/postgres.ts'

test('the clock of the archiver steps to and fro: no moment is lost, and none is promised that was not reached', async () => {
  await using server = await startPostgres({ initdb: ['--wal-segsize=1'] })
  const numbers = await makeNumbers(server)
  await archiverClockTrial(numbers, async (guarded) => new FolderLandings(guarded))
})
