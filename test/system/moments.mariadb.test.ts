import { test } from 'node:test'
import { gapTrial } from '../support/moment-trials.ts'
import { until } from '../support/mysql-family-harness.ts'
import { makeNumbers, ServerLandings } from '../support/numbers.ts'
import { startMariadb } from '../support/servers/mariadb.ts'

test('log that MariaDB purged unread is a gap: moments in it are refused, both its ends come back', async () => {
  await using server = await startMariadb()
  const log = async () => {
    await server.query('flush binary logs; flush binary logs')
    const files = await server.query<{ Log_name: string }>('show binary logs')
    // Not while the server still holds a file open for whoever read it.
    await until(async () => {
      await server.query(`purge binary logs to '${files.at(-1)?.Log_name}'`)
      return (await server.query('show binary logs')).length === 1
    }, 'the log to be purged')
  }
  const numbers = await makeNumbers(server)
  await gapTrial(numbers, { log, said: /binary log|binlog/ }, (guarded) =>
    ServerLandings.begin(guarded),
  )
})
