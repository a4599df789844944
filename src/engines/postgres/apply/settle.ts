import { Fault } from '#base/faults'
import { cellAbsent, cellNull } from '#change/batch'
import { fromServer } from '../protocol/faults.ts'
import { quoteName } from '../rows-sql.ts'
import type { TargetKey } from './catalog.ts'
import type { Cells } from './encode.kernel.ts'
import type { Anomaly, Shared } from './lane.ts'
import { conflictTable, displacedTable } from './marks.ts'
import type { Pipeline } from './pipeline.ts'
import type { RowChange } from './plan.ts'
import { keyIs } from './statements.ts'
import { isComplete, type StepSender } from './steps.ts'

/** What is shown of a value in a message, and kept of one in a record. */
const shownMax = 60
const recordedMax = 64 << 10

type Image = 'before' | 'after'
type Place = { readonly image: Image; readonly index: number }

/** Settles one change that did not meet its row, as the policy says, and records it; in the open transaction. */
export class Settlement {
  readonly #pipe: Pipeline
  readonly #sender: StepSender
  readonly #shared: Shared
  readonly #signal: AbortSignal

  constructor(pipe: Pipeline, sender: StepSender, shared: Shared, signal: AbortSignal) {
    this.#pipe = pipe
    this.#sender = sender
    this.#shared = shared
    this.#signal = signal
  }

  /** Returns how many conflicts were recorded. */
  async settle(anomaly: Anomaly, converge: boolean): Promise<number> {
    const { change } = anomaly
    const policy = this.#shared.conflicts
    if (!change || (!converge && policy === 'stop')) throw conflictFault(anomaly)
    const isClash = anomaly.error !== undefined
    if (converge) {
      if (isClash) await this.#makeRoom(change, anomaly)
      else await this.#bringBack(change)
      return 0
    }
    const there = isClash ? await this.#inItsWay(change) : []
    const target = there.length > 0 ? there.join(',') : undefined
    if (policy === 'ignore' || (change.kind === 'delete' && !isClash)) {
      await this.#record(change, isClash, 'ignored', target)
      return 1
    }
    if (!isClash && !isComplete(change)) throw conflictFault(anomaly, 'incomplete')
    await this.#clear(change, false)
    // A row that is gone, or that has the key already, is written whole.
    const writesWhole = change.kind === 'insert' || !isClash
    const how = change.table.key ? 'upsert' : 'plain'
    if (writesWhole) await this.#writeWhole(change, how, anomaly)
    else await this.#again(change, anomaly)
    await this.#record(change, isClash, 'overwritten', target)
    return 1
  }

  async #writeWhole(change: RowChange, how: 'upsert' | 'plain', anomaly: Anomaly): Promise<void> {
    const { sql, parameters } = this.#sender.statementsOf(change.table).insert(how, false)
    const cells = cellsAt(change, parameters)
    if (!cells) throw conflictFault(anomaly, 'incomplete')
    await this.#pipe.one(sql, cells, this.#signal)
    await this.#done(anomaly)
  }

  async #again(change: RowChange, anomaly: Anomaly): Promise<void> {
    await this.#sender.one(change, false, this.#signal)
    this.#sender.taken()
    const { counts } = await this.#done(anomaly)
    if (counts.at(-1) !== 1) throw conflictFault(anomaly)
  }

  /** Removes the rows that are in a change's way; their own changes are still to come. */
  async #makeRoom(change: RowChange, anomaly: Anomaly): Promise<void> {
    await this.#clear(change, true)
    this.#shared.displaced = true
    await this.#sender.one(change, true, this.#signal)
    this.#sender.taken()
    await this.#done(anomaly)
  }

  /** A row that had made room, and of which an update does not tell everything, comes back as it was before that update. */
  async #bringBack(change: RowChange): Promise<void> {
    const { key, shown, columns } = change.table
    const cells =
      key &&
      cellsAt(
        change,
        key.map(({ index }) => ({ image: 'before', index }) as const),
      )
    if (!key || !cells) return
    const names = columns.map(({ target }) => quoteName(target.name))
    const { link } = this.#shared
    const from = `from ${displacedTable} d, lateral (select (d.target::${shown}).*) t
      where d.link = ${text(link)} and d.table_name = ${text(shown)} and ${keyIs(key, 0)}`
    const sql = `insert into ${shown} (${names.join(', ')}) overriding system value
      select ${names.map((name) => `t.${name}`).join(', ')} ${from} limit 1 on conflict do nothing`
    await this.#pipe.one(sql, cells, this.#signal)
    const { counts } = await this.#done({ change })
    if (counts.at(-1) !== 1) return
    await this.#pipe.one(
      `delete from ${displacedTable} where ctid in (select d.ctid ${from})`,
      cells,
      this.#signal,
    )
    await this.#sender.one(change, true, this.#signal)
    this.#sender.taken()
    await this.#done({ change })
  }

  /** The rows of the target that stand in a change's way, as JSON. */
  async #inItsWay(change: RowChange): Promise<readonly string[]> {
    const found: string[] = []
    for (const [where, cells] of this.#clashes(change, true)) {
      await this.#pipe.one(
        `select pg_catalog.to_jsonb(t)::text from ${change.table.form.only} t where ${where}`,
        cells,
        this.#signal,
      )
      found.push(...(await this.#done({ change })).rows)
    }
    return [...new Set(found)]
  }

  async #clear(change: RowChange, keep: boolean): Promise<void> {
    const { form, shown } = change.table
    for (const [where, cells] of this.#clashes(change, false)) {
      const remove = `delete from ${form.only} t where ${where}`
      const sql = keep
        ? `with gone as (${remove} returning t::text as target) insert into ${displacedTable} (link, table_name, target)
           select ${text(this.#shared.link)}, ${text(shown)}, target from gone`
        : remove
      await this.#pipe.one(sql, cells, this.#signal)
      await this.#done({ change })
    }
  }

  /** Conditions for the rows that have what a change's row is to have in a unique key, but for that row itself. */
  *#clashes(change: RowChange, withItself: boolean): Generator<[string, Cells], void, void> {
    const { form, key: own } = change.table
    for (const key of form.keys) {
      const parts = partsOf(change, key)
      if (!parts) continue
      const isOwn =
        own !== undefined && own.every((one) => parts.some((part) => part.index === one.index))
      const itself = own?.map(({ index }) => ({
        image: change.before >= 0 ? ('before' as const) : ('after' as const),
        index,
      }))
      if (isOwn && !change.moves && !withItself) continue
      const skips =
        own !== undefined && itself !== undefined && !(isOwn && change.kind === 'insert')
      const cells = cellsAt(change, [
        ...parts.map(({ index }) => ({ image: 'after', index }) as const),
        ...(skips ? itself : []),
      ])
      if (!cells) continue
      const not = skips ? ` and not (${keyIs(own, parts.length)})` : ''
      yield [keyIs(parts, 0) + not, cells]
    }
  }

  async #record(
    change: RowChange,
    isClash: boolean,
    done: 'ignored' | 'overwritten',
    target: string | undefined,
  ): Promise<void> {
    const before = change.before < 0 ? undefined : imageJson(change, change.before)
    const after = change.after < 0 ? undefined : imageJson(change, change.after)
    const values = [
      this.#shared.link,
      change.table.shown,
      change.kind,
      isClash ? 'there' : 'gone',
      done,
    ]
    await this.#pipe.run(
      `insert into ${conflictTable} (link, table_name, change, found, done, source_before, source_after, target)
       values ($1, $2, $3, $4, $5, $6, $7, $8)`,
      [...values, before, after, target === undefined ? undefined : `[${target}]`],
      this.#signal,
    )
    await this.#done({ change })
  }

  async #done(anomaly: Anomaly): Promise<{ counts: readonly number[]; rows: readonly string[] }> {
    const outcome = await this.#pipe.end(this.#signal)
    const { failure } = outcome
    if (!failure) return outcome
    if (failure.sqlState.startsWith('23')) throw conflictFault({ ...anomaly, error: failure })
    throw fromServer(failure, `settle a conflict in ${anomaly.change?.table.shown ?? 'a table'}`)
  }
}

type Part = Place & Parameters<typeof keyIs>[0][number]

/** The columns of a key by their places in the change's images; undefined when the images do not say. */
function partsOf(change: RowChange, key: TargetKey): readonly Part[] | undefined {
  const parts = key.columns?.flatMap((one): Part[] => {
    const index = change.run.relation.columns.findIndex(({ name }) => name === one.column.name)
    if (index < 0) return []
    const { column, ...rest } = one
    return [{ ...rest, index, image: 'after', target: column }]
  })
  return parts && parts.length === key.columns?.length ? parts : undefined
}

/** Cells by their places; what an update does not send is as it was. Undefined when nothing tells. */
function cellsAt(change: RowChange, places: readonly Place[]): Cells | undefined {
  const { bytes, cells } = change.run
  const found: number[] = []
  for (const { image, index } of places) {
    let at = (image === 'before' ? change.before : change.after) + index * 2
    if (image === 'after' && cells[at] === cellAbsent && change.before >= 0) {
      at = change.before + index * 2
    }
    if (cells[at] === cellAbsent) return undefined
    found.push(at)
  }
  return { bytes, cells, base: 0, places: Int32Array.from(found) }
}

function text(value: string): string {
  return `'${value.replaceAll("'", "''")}'`
}

/** An image as JSON: each column's text, without those that it does not have. */
function imageJson(change: RowChange, image: number): string {
  const { bytes, cells, relation } = change.run
  const entries = relation.columns.flatMap(({ name }, index): [string, string | null][] => {
    const from = cells[image + index * 2] ?? cellAbsent
    const end = cells[image + index * 2 + 1] ?? 0
    if (from === cellAbsent) return []
    if (from === cellNull) return [[name, null]]
    if (end - from <= recordedMax) return [[name, bytes.toString('utf8', from, end)]]
    const begins = bytes.toString('utf8', from, from + recordedMax).replace(/\uFFFD$/, '')
    return [[name, `${begins}... (${end - from} bytes)`]]
  })
  return JSON.stringify(Object.fromEntries(entries))
}

const clashHint =
  'Something else wrote to the target, or it did not begin equal. With --on-conflict ignore or overwrite the link goes on and notes it in the table redoubt.conflict there.'

/** A change that did not meet its row, in words. */
export function conflictFault(anomaly: Anomaly, why?: 'incomplete'): Fault {
  const { change, error } = anomaly
  if (!change) {
    const said = error ? `: ${error.message}` : ''
    return new Fault('conflict', `apply changes: a row is not as the source had it${said}`, {
      hint: clashHint,
    })
  }
  const { kind, table } = change
  const row = `${kind} in ${table.shown} the row ${shownKey(change)}`
  if (error) {
    const detail = error.detail === undefined ? '' : ` (${shorten(error.detail, shownMax * 2)})`
    return new Fault('conflict', `${row}: another row is in its way, ${error.message}${detail}`, {
      hint: clashHint,
    })
  }
  if (why === 'incomplete') {
    return new Fault('conflict', `${row}: it is gone, and the log does not hold all of it`, {
      hint: `Run on the source: ALTER TABLE ${table.shown} REPLICA IDENTITY FULL; for the time of the link, or use --on-conflict ignore.`,
    })
  }
  return new Fault('conflict', `${row}: the target has no such row`, { hint: clashHint })
}

function shownKey(change: RowChange): string {
  const { bytes, cells } = change.run
  const image = change.before >= 0 ? change.before : change.after
  const key = change.table.key ?? change.table.columns
  const shown = key.slice(0, 5).map(({ index, target }) => {
    const from = cells[image + index * 2] ?? cellAbsent
    const end = Math.min(cells[image + index * 2 + 1] ?? 0, from + shownMax * 4)
    const value = from < 0 ? 'NULL' : shorten(bytes.toString('utf8', from, end), shownMax)
    return `${target.name}=${value}`
  })
  return `(${shown.join(', ')}${key.length > shown.length ? ', ...' : ''})`
}

function shorten(value: string, max: number): string {
  return value.length > max ? `${value.slice(0, max)}...` : value
}
