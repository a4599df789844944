import { test } from 'node:test'
import { gapTrial } from '../support/moment-trials.ts'
import { dropSlots, FolderLandings, makeNumbers } from '../support/numbers.ts'
import { startPostgres } from '../support/servers/postgres.ts'

test('log that PostgreSQL recycled unread is a gap: moments in it are refused, both its ends come back', async () => {
  await using server = await startPostgres({ initdb: ['--wal-segsize=1'] })
  await server.query('create table filler (n int)')
  const log = async () => {
    // The slot goes while nobody looks, and with it the log.
    for (const sql of dropSlots) await server.query(sql)
    for (let round = 0; round < 2; round++) {
      await server.query('insert into filler select generate_series(1, 40000)')
      await server.query('select pg_switch_wal()')
      await server.query('checkpoint')
    }
  }
  const numbers = await makeNumbers(server)
  await gapTrial(numbers, { log, said: /slot|WAL/ }, async (guarded) => new FolderLandings(guarded))
})
