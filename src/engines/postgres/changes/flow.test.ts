import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault } from '#base/faults'
import type { Batch, Change, RowRun } from '#change/batch'
import { capturedPlain, capturedStreamed } from '../../../../test/support/captured-changes.ts'
import { Dice } from '../../../../test/support/dice.ts'
import { imagesOf } from '../../../../test/support/postgres-mirror.ts'
import { Scratch } from '../../../../test/support/scratch.ts'
import { BatchBuilder } from './batches.ts'
import { ChangeFlow } from './flow.ts'
import { Frames } from './frames.kernel.ts'
import { OpenTransactions } from './open-transactions.ts'
import { PgoutputDecoder } from './pgoutput.kernel.ts'

const signal = AbortSignal.timeout(600_000)
const timeline = { systemId: '1', timeline: 1 }
const typeNames = new Map([
  [18, '"char"'],
  [23, 'integer'],
  [25, 'text'],
  [1700, 'numeric'],
])

type Limits = { readonly rowsMax?: number; readonly bytesMax?: number; readonly directory?: string }

async function createFlow(limits: Limits = {}): Promise<ChangeFlow> {
  const { rowsMax = 1000, bytesMax = 1 << 20, directory } = limits
  const builder = new BatchBuilder({ rowsMax, bytesMax })
  const decoder = new PgoutputDecoder({
    accepts: (name) => name[1] !== 'skipped',
    form: 'pg/text',
    timeline,
    builder,
    typeNames,
  })
  const open = directory === undefined ? undefined : await OpenTransactions.open(directory)
  return new ChangeFlow({ builder, decoder, open, history: 'h' })
}

async function decode(runs: readonly Buffer[], limits: Limits = {}): Promise<Batch[]> {
  const flow = await createFlow(limits)
  const batches: Batch[] = []
  for (const run of runs) {
    for await (const batch of flow.feed(run, signal)) batches.push(batch)
  }
  for (const item of flow.flush()) if (item.kind === 'batch') batches.push(item)
  return batches
}

/** All that was decoded, without where it was cut. */
function told(batches: readonly Batch[]): string[] {
  const said: string[] = []
  for (const one of batches.flatMap((batch) => batch.transactions)) {
    if (one.begins) said.push(`begin ${one.id} ${one.timeUs}`)
    for (const change of one.changes) said.push(...tellChange(change))
    if (one.ends) said.push(`end ${one.position?.at} ${one.origin ?? ''}`)
  }
  return said
}

function tellChange(change: Change): string[] {
  if (change.kind === 'statement') return assert.fail()
  if (change.kind === 'truncate') {
    return [
      `truncate ${change.relations.map((one) => one.name.join('.')).join()} ${change.cascade}`,
    ]
  }
  const { relation } = change
  const form = relation.columns.map((one) => `${one.name}:${one.type}${one.identifies ? '!' : ''}`)
  const images = imagesOf(change).map((image) =>
    image
      .map((cell) => (cell === undefined ? '-' : cell === null ? 'null' : cell.slice(0, 9)))
      .join('|'),
  )
  const step = change.kind === 'update' ? 2 : 1
  const rows = images.flatMap((_, at) =>
    at % step === 0 ? [images.slice(at, at + step).join(' > ')] : [],
  )
  return rows.map(
    (row) =>
      `${change.kind} ${relation.name.join('.')} (${form.join(' ')}) ${relation.before}: ${row}`,
  )
}

const t = 'public.t (id:integer! n:numeric(8,2) m:public.mood big:text) key'
const f = 'public.f (a:text! b:"char"!) full'
const expected = [
  `insert ${t}: 1|1.50|so|xxxxxxxxx`,
  `insert ${t}: 2|null|null|`,
  `update ${t}: 1|-|-|- > 1|2.00|so|-`,
  `update ${t}: 2|-|-|- > 2|2.00|null|`,
  `update ${t}: 1|-|-|- > 9|2.00|so|-`,
  `delete ${t}: 2|-|-|-`,
  `insert ${f}: é|c`,
  'insert public.f (a:text! b:"char"!) full: null|null',
  `update ${f}: é|c > é|d`,
  `update ${f}: null|null > null|d`,
  `delete ${f}: null|d`,
  `insert ${f}: origin|null`,
  'truncate public.f,public.t true',
]

test('ChangeFlow decodes what a server sent, wherever it is cut', async () => {
  const bytes = capturedPlain()
  const whole = told(await decode([bytes]))
  const changes = whole.filter((line) => !/^(begin|end)/.test(line))
  assert.deepEqual(
    changes.map((line) => line.replace('public.t,public.f', 'public.f,public.t')),
    expected,
  )
  assert.equal(whole.filter((line) => line.startsWith('begin')).length, 5)
  assert.equal(whole.filter((line) => line.endsWith(' oplain')).length, 2)
  for (let cut = 1; cut < bytes.length; cut += 1) {
    const parts = [bytes.subarray(0, cut), bytes.subarray(cut)]
    assert.deepEqual(told(await decode(parts)), whole, `cut at ${cut}`)
  }
  const single = Array.from(bytes, (_, at) => bytes.subarray(at, at + 1))
  assert.deepEqual(told(await decode(single)), whole)
})

test('ChangeFlow tells the same of transactions that were streamed while they were open', async () => {
  using scratch = new Scratch('flow')
  const options = { directory: scratch.path }
  const bytes = capturedStreamed()
  const whole = told(await decode([bytes], options))
  const changes = whole.filter((line) => !/^(begin|end)/.test(line))
  assert.deepEqual(
    changes.map((line) => line.replace('public.t,public.f', 'public.f,public.t')),
    expected,
  )
  for (let cut = 1; cut < bytes.length; cut += 301) {
    const parts = [bytes.subarray(0, cut), bytes.subarray(cut)]
    assert.deepEqual(told(await decode(parts, options)), whole, `cut at ${cut}`)
  }
})

test('ChangeFlow cuts large transactions into pieces that fit together', async () => {
  const bytes = capturedPlain()
  const whole = told(await decode([bytes]))
  for (const limits of [{ rowsMax: 1 }, { rowsMax: 2 }, { bytesMax: 100 }]) {
    const batches = await decode([bytes], limits)
    assert.deepEqual(told(batches), whole)
    assert.ok(batches.some((batch) => batch.transactions.some((one) => !one.ends)))
    if (limits.rowsMax) assert.ok(batches.every((batch) => batch.rows <= limits.rowsMax))
  }
})

test('ChangeFlow may only throw Faults at bytes that no server sends', async () => {
  using scratch = new Scratch('flow')
  const dice = new Dice(11)
  let faults = 0
  for (let trial = 0; trial < 1500; trial += 1) {
    const isStreamed = trial % 30 === 0
    const bytes = Buffer.from(isStreamed ? capturedStreamedOnce : capturedOnce)
    for (let left = 1 + dice.roll(3); left > 0; left -= 1)
      bytes[dice.roll(bytes.length)] = dice.roll(256)
    try {
      const batches = await decode([bytes], isStreamed ? { directory: scratch.path } : {})
      // Offsets stay within the bytes, whatever came.
      told(batches)
      for (const { cells, bytes: held } of runsOf(batches)) {
        assert.ok(cells.every((cell) => cell >= -2 && cell <= held.length))
      }
    } catch (error) {
      assert.ok(error instanceof Fault, String(error))
      faults += 1
    }
  }
  assert.ok(faults > 250, String(faults))
})

const capturedOnce = capturedPlain()
const capturedStreamedOnce = capturedStreamed()

function runsOf(batches: readonly Batch[]): RowRun[] {
  return batches
    .flatMap((batch) => batch.transactions.flatMap((one) => one.changes))
    .filter((change): change is RowRun => 'cells' in change)
}

test('a long message is moved once into memory of its size', async () => {
  const frames = new Frames()
  const size = 5 << 20
  const message = Buffer.alloc(size + 5, 7)
  message[0] = 0x64
  message.writeInt32BE(size + 4, 1)
  for (let at = 0; at < message.length; at += 60_000) {
    assert.equal(frames.next(), false)
    frames.take(message.subarray(at, at + 60_000))
  }
  const held = frames.bytes
  assert.equal(frames.next(), true)
  assert.equal(frames.end - frames.at, size)
  assert.ok(held.length < size + (1 << 20), `${held.length}`)
  assert.throws(
    () => {
      frames.take(Buffer.from('c\0\0\0\x04'))
      frames.next()
    },
    { code: 'protocol' },
  )
})
