// The changes of MariaDB 10.11, decoded: rows per second of our own processor time, from the files in memory to offsets and to
// values, and from the live server's socket to offsets. Eight mixed columns; 61 % inserts, 33 % updates, 6 % deletes.
// Usage: node bench/mysql-changes.ts [--rows 300000] [--rounds 3]
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { LogBlock } from '#change'
import type { Batch } from '#change/batch'
import { EventAssembler } from '../src/engines/mysql/changes/events.ts'
import { ChangeDecoder } from '../src/engines/mysql/changes/decoder.ts'
import { CatalogLookup } from '../src/engines/mysql/changes/catalog-table.ts'
import { Tables } from '../src/engines/mysql/changes/tables.ts'
import { parseFlavor } from '../src/engines/mysql/flavor.ts'
import { parseEndpoint } from '../src/engines/mysql/protocol/endpoint.ts'
import { createCellReader } from '../src/engines/mysql/values.ts'
import { positionOf, readItems } from '../test/support/mysql-mirror.ts'
import { startMariadb } from '../test/support/servers/mariadb.ts'

const { values } = parseArgs({
  options: {
    rows: { type: 'string', default: '300000' },
    rounds: { type: 'string', default: '3' },
  },
})
const rows = Number(values.rows)
await using server = await startMariadb({
  version: '10.11',
  settings: { 'max-binlog-size': '1073741824', 'binlog-annotate-row-events': 'OFF' },
})
await server.query(
  `create database d; create table d.t (id bigint primary key, a int, b smallint, v varchar(100), c char(20), n decimal(12,2), at datetime(3), w varchar(200)) character set utf8mb4`,
)
const after = await positionOf(server)
const part = Math.ceil(rows / 10)
for (let from = 1; from <= rows; from += part) {
  await server.query(
    `insert into d.t select seq, seq * 7, seq % 3000, md5(seq), 'short text', seq / 3, now(3), repeat('w', seq % 90)
     from d.seq_${from}_to_${Math.min(rows, from + part - 1)}`,
  )
}
await server.query('update d.t set a = a + 1, v = reverse(v) where id % 100 < 54')
await server.query('delete from d.t where id % 10 = 9')

const [log] = await server.query<{ Log_name: string }>('show binary logs')
const content = readFileSync(join(server.dataDir, log?.Log_name ?? ''))
const version = (await server.query<{ v: string }>('select version() as v'))[0]?.v ?? ''
using lookup = new CatalogLookup(parseEndpoint(server.url), parseFlavor(version))
const { signal } = new AbortController()

async function decode(take: (batch: Batch) => void): Promise<void> {
  const tables = new Tables({
    selection: { accepts: () => true },
    charsets: new Map(),
    readCatalog: (database, table) => lookup.read(database, table, signal),
  })
  const decoder = new ChangeDecoder({
    family: 'mariadb',
    history: 'bench',
    selection: { accepts: () => true },
    tables,
    collations: new Map(),
    batchRowsMax: 10_000,
    batchBytesMax: 4 << 20,
    reread: () => {
      throw new Error('no XA here')
    },
  })
  const assembler = new EventAssembler()
  const size = 1 << 20
  for (let offset = 0; offset < content.length; offset += size) {
    const bytes = content.subarray(offset, offset + size)
    const block = { offset, bytes, segment: log?.Log_name ?? '', history: 'bench' } as LogBlock
    for (const event of assembler.take(block)) {
      const steps = decoder.take(event)
      if (steps) for await (const _ of steps);
    }
    decoder.endBlock(bytes.length)
    for (const batch of decoder.takeReady()) take(batch)
  }
  decoder.flush()
  for (const batch of decoder.takeReady()) take(batch)
}

function countRows(batch: Batch): number {
  return batch.rows
}

let sink = 0

function readValues(batch: Batch): number {
  for (const change of batch.transactions.flatMap((one) => one.changes)) {
    if (change.kind === 'statement' || change.kind === 'truncate') continue
    const { cells, bytes, relation } = change
    const readers = relation.columns.map((column) => createCellReader(column))
    for (let at = 0, column = 0; at < cells.length; at += 2) {
      const start = cells[at] ?? 0
      if (start >= 0) sink += readers[column]?.(bytes, start, cells[at + 1] ?? 0).length ?? 0
      column = column + 1 === readers.length ? 0 : column + 1
    }
  }
  return batch.rows
}

async function measure(name: string, run: (add: (rows: number) => void) => Promise<void>) {
  for (let round = 0; round < Number(values.rounds); round++) {
    let count = 0
    const before = process.cpuUsage()
    await run((more) => void (count += more))
    const { user, system } = process.cpuUsage(before)
    const seconds = (user + system) / 1e6
    const mega = content.length / 1e6
    process.stdout.write(
      `${name}: ${count} rows, ${seconds.toFixed(2)} CPU s, ${(count / seconds / 1e6).toFixed(2)} M rows/CPU s, ${(mega / seconds).toFixed(0)} MB/CPU s\n`,
    )
  }
}

await measure('files to offsets', (add) => decode((batch) => add(countRows(batch))))
await measure('files to values', (add) => decode((batch) => add(readValues(batch))))
const total = Math.floor(rows * 1.64)
await measure('server to offsets', async (add) => {
  let seen = 0
  await readItems(server, { after, accepts: (name) => name[0] === 'd' }, (item) => {
    if (item.kind !== 'batch') return false
    add(item.rows)
    seen += item.rows
    return seen >= total
  })
})
process.stdout.write(
  `${sink > 0 ? '' : 'nothing was read'}peak ${(process.resourceUsage().maxRSS / 1024).toFixed(0)} MiB\n`,
)
