import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ObjectName } from '#change/schema'
import { carry, everything, limit, openEngine } from '../../../test/support/mysql-carry.ts'
import { makeEverything } from '../../../test/support/mysql-every-type.ts'
import type { FamilyServer } from '../../../test/support/servers/mysql-family.ts'

export type Between = {
  readonly from: () => Promise<FamilyServer>
  readonly to: () => Promise<FamilyServer>
  /** Codes of what blocks even when the nearest is taken. */
  readonly blocks: readonly string[]
}

/** From a server to one of another version: what cannot be carried is told, and all else arrives. */
export function betweenTest(said: string, { from, to, blocks }: Between): void {
  test(`${said}: what cannot be carried is listed, and all else comes as it is`, async () => {
    await using server = await from()
    await using target = await to()
    await makeEverything(server)
    await using source = await openEngine(server.url)
    await using there = await openEngine(target.url)
    const signal = limit()
    const options = { phases: ['schema', 'copy'], convert: true, signal } as const
    const out = new Set<string>()
    const accepts = (name: ObjectName) => !out.has(name.join('\n'))
    const first = await source.schema.readSchema(everything, { signal })
    const findings = await there.schema.checkSchema(first, options)
    const blocking = findings.filter(({ severity }) => severity === 'blocks')
    assert.deepEqual([...new Set(blocking.map(({ code }) => code))].sort(), [...blocks].sort())
    for (const object of first.objects) {
      const isBlocked = blocking.some((one) => one.said.startsWith(`${object.id}: `))
      if (isBlocked) out.add((object.table ?? object.name).join('\n'))
    }
    const left = await source.schema.readSchema({ ...everything, accepts }, { signal })
    const again = await there.schema.checkSchema(left, options)
    assert.deepEqual(
      again.filter(({ severity }) => severity === 'blocks'),
      [],
    )
    await carry(server.url, target.url, { selection: { accepts }, convert: true })
    for (const { name, columns } of left.tables) {
      const at = name.map((part) => `\`${part.replaceAll('`', '``')}\``).join('.')
      const list = columns
        .filter(({ type }) => !/^(?:json|geometry|point|polygon)/.test(type))
        .map(({ name: own, type }) => {
          const column = `\`${own.replaceAll('`', '``')}\``
          // The driver reads text that is checked to be JSON as JSON.
          return type === 'longtext' ? `hex(${column})` : column
        })
        .join(', ')
      const sql = `select ${list} from ${at} order by ${list}`
      assert.deepEqual(await rows(target, sql), await rows(server, sql), at)
    }
  })
}

async function rows(server: FamilyServer, sql: string): Promise<unknown> {
  await using client = await server.connect()
  await client.query(`set session time_zone = '+00:00', sql_mode = ''`)
  const [found] = await client.query(sql)
  // The last moment of MariaDB 11.5 and later means what that of the others does.
  return JSON.stringify(found).replaceAll(
    '2106-02-07 06:28:15.999999',
    '2038-01-19 03:14:07.999999',
  )
}
