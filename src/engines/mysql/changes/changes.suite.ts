import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { silentLog } from '#base/log'
import type { LogBlock } from '#change'
import type { Batch, Transaction } from '#change/batch'
import type { StartServer } from '../../../../test/support/mysql-family-harness.ts'
import { until } from '../../../../test/support/mysql-family-harness.ts'
import { Dice } from '../../../../test/support/dice.ts'
import type { FamilyServer } from '../../../../test/support/servers/mysql-family.ts'
import { makeEverything } from '../../../../test/support/mysql-every-type.ts'
import { imagesOf, Mirror, positionOf, readAll } from '../../../../test/support/mysql-mirror.ts'
import { parseFlavor } from '../flavor.ts'
import { mysql } from '../mysql.ts'
import { fileNumber } from '../position.ts'
import { parseEndpoint } from '../protocol/endpoint.ts'
import { CatalogLookup } from './catalog-table.ts'
import { ChangeDecoder } from './decoder.ts'
import { EventAssembler } from './events.ts'
import { type CatalogTable, Tables } from './tables.ts'

type Abilities = {
  /** The log can be told to hold the names of columns. */
  readonly names: boolean
  /** A transaction stays prepared when its session ends, and is in the log where it was prepared. */
  readonly prepares: boolean
  readonly patches: boolean
  /** A table is made and filled in one statement. */
  readonly makesAndFills: boolean
  /** Settings under which changes are compressed. */
  readonly compressed: Readonly<Record<string, Readonly<Record<string, string>>>>
}

/** The decoding of a live server's log. */
export function changesTests(start: StartServer, abilities: Abilities): void {
  test('rows, borders and positions of transactions come as they were committed', async () => {
    await using server = await start()
    await server.query('create database d')
    const after = await positionOf(server)
    await server.query(
      `create table d.t (id int primary key, v varchar(100), n bigint);
       insert into d.t values (1, 'one', null), (2, '', -5);
       begin; update d.t set v = 'eins' where id = 1; delete from d.t where id = 2; commit`,
    )
    const transactions = (await readAll(server, { after })).flatMap((one) => one.transactions)
    assert.deepEqual(transactions.map(shown), [
      ['statement'],
      ['insert 1,one,NULL 2,,-5'],
      ['update 1,one,NULL 1,eins,NULL', 'delete 2,,-5'],
    ])
  })

  test('values of every type are those that SQL prints', async () => {
    await using server = await start()
    const after = await positionOf(server)
    await makeEverything(server)
    const mirror = new Mirror()
    for (const batch of await readAll(server, { after })) mirror.take(batch)
    const count = await mirror.compare(server)
    assert.ok(count > 30, `${count} rows`)
  })

  test('the changes of a random load make up the tables, in pieces and from every position', async () => {
    await using server = await start({ settings: { 'max-binlog-size': '65536' } })
    const after = await positionOf(server)
    await randomLoad(server)
    const limits = { rowsMax: 50, bytesMax: 16 << 10 }
    const batches = await readAll(server, { after, ...limits })
    const mirror = new Mirror()
    for (const batch of batches) mirror.take(batch)
    assert.ok((await mirror.compare(server)) > 50)
    const pieces = batches.filter((batch) => batch.transactions.some((one) => !one.ends))
    assert.ok(pieces.length > 0, 'a transaction in pieces')
    assert.ok(
      batches.every((batch) => batch.rows <= 50),
      String(Math.max(...batches.map((one) => one.rows))),
    )
    const { ids, positions } = mirror
    for (let at = 7; at < positions.length; at += 29) {
      const rest = new Mirror()
      const from = await readAll(server, { after: positions[at] ?? after })
      for (const one of from.flatMap((batch) => batch.transactions)) rest.ids.push(one.id)
      assert.deepEqual(rest.ids, ids.slice(at + 1))
    }
  })

  test('images without what did not change leave it absent', async () => {
    await using server = await start()
    const after = await positionOf(server)
    await using client = await server.connect()
    await client.query('create database d')
    await client.query('create table d.t (id int primary key, a int, b text, c int)')
    await client.query('create table d.no_key (a int, b int)')
    for (const image of ['minimal', 'noblob']) {
      await client.query(`set session binlog_row_image = ${image}`)
      await client.query(`insert into d.t (id, a, b) values (1, 5, 'text'), (2, 6, null)`)
      await client.query('update d.t set a = 7 where id = 1')
      await client.query('update d.t set id = 3 where id = 2')
      await client.query('insert into d.no_key values (1, 2); update d.no_key set b = 3')
      await client.query('delete from d.t; delete from d.no_key')
    }
    const batches = await readAll(server, { after })
    const mirror = new Mirror()
    for (const batch of batches) mirror.take(batch)
    assert.equal(await mirror.compare(server), 0)
    const [insert, , update] = batches.flatMap((one) => one.transactions).slice(3)
    assert.deepEqual(insert?.changes[0]?.kind, 'insert')
    const change = update?.changes[0]
    assert.ok(change?.kind === 'update')
    assert.equal(change.relation.before, 'key')
  })

  if (abilities.prepares)
    test('a prepared transaction comes when it commits, also from the log again', async () => {
      await using server = await start()
      await server.query('create database d')
      await server.query('create table d.t (id int primary key, b longblob)')
      const after = await positionOf(server)
      await using one = await server.connect('d')
      await using two = await server.connect('d')
      await one.query(`xa start 'one','branch',7`)
      await one.query(`insert into t values (1, 'x')`)
      await one.query(`xa end 'one','branch',7`)
      await one.query(`xa prepare 'one','branch',7`)
      await two.query(`xa start 'gone'`)
      await two.query(`insert into t values (99, 'never')`)
      await two.query(`xa end 'gone'`)
      await two.query(`xa prepare 'gone'`)
      await server.query(`insert into d.t values (2, 'between')`)
      await server.query('flush binary logs')
      const between = await positionOf(server)
      await using three = await server.connect('d')
      await three.query(`xa start 'large'`)
      for (let id = 100; id < 105; id++) {
        await three.query(`insert into t values (?, repeat('y', 4000000))`, [id])
      }
      await three.query(`xa end 'large'`)
      await three.query(`xa prepare 'large'`)
      await server.query(`insert into d.t values (3, 'behind')`)
      await one.query(`xa commit 'one','branch',7`)
      await two.query(`xa rollback 'gone'`)
      await three.query(`xa commit 'large'`)
      await using four = await server.connect('d')
      await four.query(`xa start 'short'`)
      await four.query(`insert into t values (4, 'one phase')`)
      await four.query(`xa end 'short'`)
      await four.query(`xa commit 'short' one phase`)
      const order = (batches: readonly Batch[]) =>
        batches
          .flatMap((batch) => batch.transactions)
          .flatMap((transaction) => transaction.changes)
          .flatMap((change) => (change.kind === 'insert' ? imagesOf(change) : []))
          .map(([id]) => id)
      const large = ['100', '101', '102', '103', '104']
      assert.deepEqual(order(await readAll(server, { after })), ['2', '3', '1', ...large, '4'])
      const rest = order(await readAll(server, { after: between }))
      assert.deepEqual(rest, ['3', '1', ...large, '4'])
    })

  if (abilities.names)
    test('names come with the log where it has them, and else from a catalog that must fit', async () => {
      await using server = await start()
      await server.query('create database d')
      const after = await positionOf(server)
      await server.query('set global binlog_row_metadata = full')
      await server.query(
        `create table d.t (id int unsigned primary key, e enum('a','ü''') character set latin1, s set('x','y'), v varchar(10) character set latin1);
       insert into d.t values (4000000000, 'ü''', 'x,y', 'é');
       alter table d.t change v w varchar(10) character set latin1, add z int first;
       insert into d.t values (1, 2, 'a', '', 'w')`,
      )
      await server.query('set global binlog_row_metadata = minimal')
      const mirror = new Mirror()
      for (const batch of await readAll(server, { after })) mirror.take(batch)
      assert.deepEqual(
        [...(mirror.tables.get('d.t') ?? [])].flatMap(([, rows]) => rows),
        [
          ['4000000000', "ü'", 'x,y', 'é'],
          ['1', '2', 'a', '', 'w'],
        ],
      )
      const names = mirror.relations.get('d.t')?.columns.map((column) => column.name)
      assert.deepEqual(names, ['z', 'id', 'e', 's', 'w'])
      const plain = await positionOf(server)
      await server.query(`insert into d.t values (1, 3, 'a', '', 'w'); alter table d.t drop z`)
      const refused = await refusalOf(readAll(server, { after: plain }))
      assert.equal(refused, 'source-changed')
    })

  test('a rename that was made behind the place of the rows is told', async () => {
    await using server = await start()
    await server.query('create database d; create table d.t (id int primary key, a int, b int)')
    const after = await positionOf(server)
    await server.query('insert into d.t values (1, 2, 3)')
    await server.query('alter table d.t change a c int, change b a int')
    assert.equal(await refusalOf(readAll(server, { after })), 'source-changed')
    const behind = await positionOf(server)
    await server.query('insert into d.t values (2, 2, 3); create index i on d.t (c)')
    assert.equal((await readAll(server, { after: behind })).length > 0, true)
  })

  for (const [name, settings] of Object.entries(abilities.compressed))
    test(`compressed changes are read: ${name}`, async () => {
      await using server = await start({ settings })
      const after = await positionOf(server)
      await randomLoad(server)
      await using client = await server.connect('d')
      await client.query(`update keyed set long_one = repeat(concat(v, id), 2000) where id < 150`)
      await client.query(`xa start 'packed'`)
      await client.query(`insert into keyed (id, v) values (5001, repeat('x', 300)), (5002, '')`)
      await client.query(`xa end 'packed'`)
      await client.query(`xa prepare 'packed'`)
      await server.query(`insert into d.keyed (id, v) values (5003, repeat('y', 300))`)
      const between = await positionOf(server)
      await client.query(`xa commit 'packed'`)
      const mirror = new Mirror()
      const batches = await readAll(server, { after, rowsMax: 50, bytesMax: 64 << 10 })
      for (const batch of batches) mirror.take(batch)
      assert.ok((await mirror.compare(server)) > 50)
      const rest = await readAll(server, { after: between })
      assert.deepEqual(
        rest.map((batch) => batch.rows),
        [2],
      )
    })

  if (abilities.patches)
    test('parts of JSON documents come as patches', async () => {
      await using server = await start()
      const after = await positionOf(server)
      await using client = await server.connect()
      await client.query('create database d; use d')
      await client.query('create table d.p (id int primary key, a json, n int, b json)')
      await client.query(`set session binlog_row_value_options = 'PARTIAL_JSON'`)
      await client.query(
        `insert into d.p values (1, '{"k": [1, 2, {"x": "a long enough text to be kept"}], "m": null}', 1, '{"z": 1.5, "y": "and more of a text here"}')`,
      )
      for (const image of ['full', 'minimal']) {
        await client.query(`set session binlog_row_image = ${image}`)
        await client.query(`update d.p set a = json_set(a, '$.k[2].x', '${image}'), n = n + 1`)
        await client.query(`update d.p set b = json_remove(json_replace(b, '$.y', '"'), '$.z')`)
        await client.query(`update d.p set a = json_set(a, '$.q', -5), b = json_set(b, '$.z', 1.5)`)
      }
      const said = (await readAll(server, { after }))
        .flatMap((one) => one.transactions)
        .flatMap((one) => one.changes)
        .flatMap((change) => (change.kind === 'update' ? imagesOf(change) : []))
        .filter((_, index) => index % 2 === 1)
      assert.deepEqual(said[0]?.[1], 'replace $.k[2].x "full"')
      assert.deepEqual(said[0]?.[2], '2')
      assert.deepEqual(said[1]?.[3], 'replace $.y "\\""; remove $.z undefined')
      assert.deepEqual(said[2]?.slice(1), ['insert $.q -5', '2', 'insert $.z 1.5'])
      assert.deepEqual(said[3]?.slice(1), ['replace $.k[2].x "minimal"', '3', undefined])
    })

  test('statements of objects come with their settings, all others are passed over or refused', async () => {
    await using server = await start()
    await server.query('create database d; create table d.t (id int primary key)')
    const after = await positionOf(server)
    await using client = await server.connect('d')
    await client.query(`set session sql_mode = 'ANSI_QUOTES'`)
    await client.query('alter table "t" add "n" int')
    await client.query('create temporary table tt (id int)')
    await client.query('insert into tt values (1)')
    await client.query('flush tables')
    await client.query('analyze table t')
    await client.query('truncate table t')
    await client.query('drop temporary table tt')
    if (abilities.makesAndFills) await client.query('create table u as select 5 as id')
    else {
      await client.query('create table u (id int)')
      await client.query('insert into u values (5)')
    }
    await client.query('create table other_one (id int)')
    const accepts = (name: readonly string[]) => name[1] === 't' || name[1] === 'u'
    const batches = await readAll(server, { after, accepts })
    const changes = batches.flatMap((one) => one.transactions).flatMap((one) => one.changes)
    const said = changes.map((change) =>
      change.kind === 'statement' ? change.sql.replaceAll(/\s+/g, ' ').slice(0, 14) : change.kind,
    )
    const create = said.findIndex((text) => /^create/i.test(text))
    assert.deepEqual(said.slice(0, 2), ['alter table "t', 'truncate table'])
    assert.ok(create === 2 && said.includes('insert'), said.join())
    const [alter] = changes
    assert.ok(alter?.kind === 'statement')
    assert.equal(alter.database, 'd')
    assert.equal(alter.settings['@@session.sql_mode'], '4')
    assert.deepEqual(await findings(server), [])
    await server.query('set global binlog_format = mixed')
    assert.deepEqual(await findings(server), ['binlog-format-not-row'])
    await server.query('set global binlog_format = row')
    await client.query('set session binlog_format = statement')
    const plain = await positionOf(server)
    await client.query('insert into other_one values (1)')
    assert.equal((await readAll(server, { after: plain, accepts })).length > 0, true)
    await client.query('insert into t values (1, 2)')
    assert.equal(await refusalOf(readAll(server, { after: plain, accepts })), 'unsupported')
  })

  test('a place that the log does not have is told, a purged one too', async () => {
    await using server = await start()
    await server.query('create database d; create table d.t (id int primary key)')
    const after = await positionOf(server)
    const place = (offset: number) => ({
      ...after,
      at: `${after.at.slice(0, 11)}${String(Number(after.at.slice(11, 23)) + offset).padStart(12, '0')}`,
    })
    await server.query('insert into d.t values (1)')
    assert.equal(await refusalOf(readAll(server, { after: place(3) })), 'source-changed')
    assert.equal(await refusalOf(readAll(server, { after: place(100_000) })), 'source-changed')
    await server.query('flush binary logs; insert into d.t values (2)')
    const [last] = (await server.query<{ Log_name: string }>('show binary logs')).slice(-1)
    await until(async () => {
      await server.query('purge binary logs to ?', [last?.Log_name])
      return (await server.query('show binary logs')).length === 1
    }, 'the log to be purged')
    assert.equal(await refusalOf(readAll(server, { after })), 'log-lost')
  })

  test('a log is decoded alike however it is cut, and damage to it is never more than a Fault', async () => {
    for (const settings of [{}, ...Object.values(abilities.compressed)]) {
      await using server = await start({ settings })
      await server.query('create database d')
      await server.query('create table d.t (id int primary key, v varchar(200), n decimal(9,2))')
      await server.query('flush binary logs')
      await server.query(`insert into d.t values (1, 'one', 1.5), (2, repeat('x', 150), null)`)
      await server.query(`begin; update d.t set v = repeat('y', 180); delete from d.t; commit`)
      const [last] = (await server.query<{ Log_name: string }>('show binary logs')).slice(-1)
      const name = last?.Log_name ?? ''
      const content = readFileSync(join(server.dataDir, name))
      const file = new LoggedFile(server, name)
      const whole = await file.decode([content])
      assert.equal(whole.length, 2)
      for (let at = 4; at < content.length; at++) {
        const cut = await file.decode([content.subarray(0, at), content.subarray(at)])
        assert.deepEqual(cut, whole, `cut at ${at}`)
      }
      // As after a failover: what the other server's log has too is not given out again.
      assert.deepEqual(await file.decode([content], { again: [content] }), whole)
      // As after a crash: the file ends within a transaction, of which a piece was given out.
      const torn = content.subarray(0, content.length - 40)
      const rest = await file.decode([torn], { again: [content], rowsMax: 1 })
      const aborted = rest.indexOf('aborted')
      // A transaction that is one event is there or it is not.
      assert.equal(aborted > 0, !('binlog-transaction-compression' in settings), rest.join())
      // The other log has it whole: it comes again, from its beginning.
      const again = aborted > 0 ? rest.slice(aborted + 1) : rest.slice(-2)
      assert.ok(again.length > 0 && again.every((one) => one === 'a piece'), rest.join())
      const dice = new Dice(5)
      let refused = 0
      for (let trial = 0; trial < 1500; trial++) {
        const broken = Buffer.from(content)
        for (let count = 1 + dice.roll(3); count > 0; count--) {
          broken[4 + dice.roll(content.length - 4)] = dice.roll(256)
        }
        try {
          await file.decode([broken])
        } catch (error) {
          assert.ok(isFault(error), String(error instanceof Error ? error.stack : error))
          refused += 1
        }
      }
      assert.ok(refused > 100, `${refused} refused`)
    }
  })

  test('a server that is killed loses nothing of what it committed, and gives nothing else', async () => {
    await using server = await start({ settings: { 'sync-binlog': '1' } })
    await server.query('create database d; create table d.t (id int primary key, v longtext)')
    const after = await positionOf(server)
    const mirror = new Mirror()
    await using client = await server.connect('d')
    await client.query(`insert into t values (1, 'before')`)
    await client.query('begin')
    for (let id = 2; id < 40; id++) {
      await client.query(`insert into t values (?, repeat('x', 100000))`, [id])
    }
    const committing = client.query('commit').catch(() => undefined)
    await server.kill9()
    await committing
    await server.start()
    await server.query(`insert into d.t values (1000, 'behind')`)
    for (const batch of await readAll(server, { after, bytesMax: 1 << 20 })) mirror.take(batch)
    assert.ok((await mirror.compare(server)) >= 2)
  })
}

/** Codes of what stands in the way of reading its changes. */
async function findings(server: FamilyServer): Promise<string[]> {
  const signal = AbortSignal.timeout(600_000)
  await using engine = await mysql.open(server.url, { signal, log: silentLog })
  const found = await engine.probe('sync-from', { signal })
  return found.filter((one) => one.severity === 'blocks').map((one) => one.code)
}

/** Decodes one file of a server's log from memory. */
class LoggedFile {
  readonly #server: FamilyServer
  readonly #name: string
  #known: CatalogTable | undefined

  constructor(server: FamilyServer, name: string) {
    this.#server = server
    this.#name = name
  }

  /** `again` comes as the log of another server behind the first. */
  async decode(
    parts: readonly Buffer[],
    options: { readonly again?: readonly Buffer[]; readonly rowsMax?: number } = {},
  ): Promise<string[]> {
    const family = this.#server.scheme
    const accepts = () => true
    const readCatalog = async (database: string, table: string) => {
      if (!this.#known) {
        const row = await this.#server.query<{ v: string }>('select version() as v')
        const flavor = parseFlavor(row[0]?.v ?? '')
        using lookup = new CatalogLookup(parseEndpoint(this.#server.url), flavor)
        this.#known = await lookup.read(database, table, AbortSignal.timeout(600_000))
      }
      return this.#known
    }
    const tables = new Tables({ selection: { accepts }, charsets: new Map(), readCatalog })
    const decoder = new ChangeDecoder({
      family,
      history: 'h',
      selection: { accepts },
      tables,
      collations: new Map(),
      batchRowsMax: options.rowsMax ?? 1000,
      batchBytesMax: 1 << 20,
      reread: () => Readable.from([]),
    })
    const assembler = new EventAssembler()
    for (const [history, pieces] of Object.entries({ h: parts, other: options.again ?? [] })) {
      let offset = 0
      for (const bytes of pieces) {
        if (offset === 0) decoder.beginFile(history, { file: fileNumber(this.#name), offset })
        const block = { offset, bytes, segment: this.#name, history } as LogBlock
        for (const event of assembler.take(block)) for await (const _ of decoder.take(event) ?? []);
        offset += bytes.length
      }
    }
    decoder.flush()
    const transactions = decoder.takeReady().flatMap((batch) => batch.transactions)
    return transactions.map((one) => {
      if (one.aborted) return 'aborted'
      if (!one.begins || !one.ends) return 'a piece'
      return `${one.id} ${one.position?.at} ${shown(one).join('; ')}`
    })
  }
}

async function refusalOf(running: Promise<unknown>): Promise<string> {
  try {
    await running
  } catch (error) {
    return isFault(error) ? error.code : String(error)
  }
  return 'nothing'
}

/** Transactions of all sizes on tables with and without keys, some of them rolled back, with the log rotating beneath. */
async function randomLoad(server: FamilyServer): Promise<void> {
  const dice = new Dice(20261121)
  await using client = await server.connect()
  await client.query('create database d')
  await client.query('use d')
  await client.query(
    'create table keyed (id int primary key, v varchar(400), n double, at datetime(3), long_one longtext) character set utf8mb4',
  )
  await client.query('create table two (a int, b varchar(20), c text, primary key (b, a))')
  await client.query('create table bare (a int, b varchar(20))')
  for (let round = 0; round < 150; round++) {
    await client.query('begin')
    const count = round % 40 === 39 ? 300 : 1 + dice.roll(6)
    for (let at = 0; at < count; at++) await client.query(...step(dice))
    await client.query(dice.roll(8) === 0 ? 'rollback' : 'commit')
  }
}

function step(dice: Dice): [string, unknown[]] {
  const id = dice.roll(200)
  const text = 'aé表😀'.repeat(dice.roll(20))
  const choices: [string, unknown[]][] = [
    ['replace into keyed (id, v, n, at) values (?, ?, ?, now(3))', [id, text, id / 7]],
    ['update keyed set v = ?, n = n * 2 where id between ? and ?', [text, id, id + 5]],
    ['update ignore keyed set id = id + 1000 where id = ?', [id]],
    ['delete from keyed where id = ?', [id]],
    ['insert ignore into two values (?, ?, ?)', [id % 10, String(id % 7), text]],
    ['delete from two where a = ?', [id % 10]],
    ['insert into bare values (?, ?), (?, null)', [id % 5, 'same', id % 5]],
    ['update bare set b = ? where a = ? limit 1', ['other', id % 5]],
    ['delete from bare where a = ? limit 2', [id % 5]],
  ]
  return dice.pick(choices)
}

function shown(one: Transaction): string[] {
  assert.ok(one.begins && one.ends && one.position)
  return one.changes.map((change) => {
    if (change.kind === 'statement' || change.kind === 'truncate') return change.kind
    const images = imagesOf(change).map((image) => image.map((cell) => cell ?? 'NULL').join())
    return [change.kind, ...images].join(' ')
  })
}
