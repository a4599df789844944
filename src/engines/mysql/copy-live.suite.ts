import assert from 'node:assert/strict'
import { test } from 'node:test'
import { carry } from '../../../test/support/mysql-carry.ts'
import { makeEverything } from '../../../test/support/mysql-every-type.ts'
import { checksums, type StartServer } from '../../../test/support/mysql-family-harness.ts'
import type { FamilyServer } from '../../../test/support/servers/mysql-family.ts'

/** Schema and rows of a live server in another. */
export function copyLiveTests(start: StartServer): void {
  test('all objects and rows of a server come into another as they are', async () => {
    await using server = await start()
    await using target = await start()
    await makeEverything(server)
    const before = await settingsOf(target)
    await carry(server.url, target.url)
    assert.deepEqual(await checksums(target), await checksums(server))
    if (server.version !== '5.6') {
      assert.equal(await dump(target), await dump(server))
      const text = await dump(server)
      for (const what of ['TRIGGER', 'EVENT', 'PROCEDURE', 'VIEW', 'FULLTEXT', 'FOREIGN KEY']) {
        assert.match(text, new RegExp(what, 'i'))
      }
    }
    assert.deepEqual(await settingsOf(target), before)
    assert.deepEqual(await target.query(`show databases like 'redoubt'`), [])
  })
}

/** Without what is made disabled: see the findings. */
export async function dump(server: FamilyServer, ...databases: readonly string[]): Promise<string> {
  const tool = server.scheme === 'mariadb' ? 'mariadb-dump' : 'mysqldump'
  const own = `'mysql', 'sys', 'performance_schema', 'information_schema'`
  const all = await server.query<{ n: string }>(
    `select schema_name as n from information_schema.schemata where schema_name not in (${own}) order by 1`,
  )
  const names = databases.length > 0 ? databases : all.map(({ n }) => n)
  const text = server.tool(
    tool,
    ...server.clientArgs,
    '--no-data',
    '--routines',
    '--triggers',
    '--events',
    '--skip-dump-date',
    ...(server.scheme === 'mysql' ? ['--set-gtid-purged=OFF'] : []),
    '--databases',
    ...names,
  )
  return text
    .replaceAll(
      / ON COMPLETION (NOT )?PRESERVE (ENABLE|DISABLE) /g,
      ' ON COMPLETION $1PRESERVE ENABLE ',
    )
    .replaceAll(/^-- (Host|Server version|MariaDB dump).*\n/gm, '')
}

async function settingsOf(server: FamilyServer): Promise<unknown> {
  return server.query(
    `show global variables where variable_name in ('innodb_flush_log_at_trx_commit', 'sync_binlog', 'local_infile', 'max_allowed_packet', 'event_scheduler')`,
  )
}
