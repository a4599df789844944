import { Fault } from '#base/faults'
import type { Position } from '#change'
import type { Batch, Change, Relation, RowRun, Transaction, Truncation } from '#change/batch'

const cellsMin = 4096
const cellsMax = 1 << 18
/** So many transactions in one batch at most: those without a row count for nothing else. */
const transactionsMax = 10_000

type Open = { readonly id: string; readonly timeUs: bigint; origin: string | undefined }

/** How far a transaction was handed out when its reading broke off. */
export type Unfinished = { readonly id: string; readonly changes: number }

/** Gathers decoded rows into batches: whole transactions in commit order, or a piece of one that is too large. */
export class BatchBuilder {
  /** Where the cells of the present row go: see `room`. */
  cells = new Int32Array(cellsMin)
  readonly #rowsMax: number
  readonly #bytesMax: number
  #ready: Batch[] = []
  #done: Transaction[] = []
  #doneRows = 0
  #doneBytes = 0
  #open: Open | undefined
  #begins = true
  #changes: Change[] = []
  #openRows = 0
  #openBytes = 0
  #runFrom = 0
  #fill = 0
  #runRows = 0
  #kind: RowRun['kind'] = 'insert'
  #relation: Relation | undefined
  #bytes: Buffer = Buffer.alloc(0)
  #skipId: string | undefined
  #skip = 0

  constructor(limits: { readonly rowsMax: number; readonly bytesMax: number }) {
    this.#rowsMax = limits.rowsMax
    this.#bytesMax = limits.bytesMax
  }

  get isOpen(): boolean {
    return this.#open !== undefined
  }

  get hasReady(): boolean {
    return this.#ready.length > 0
  }

  /** The server sends a transaction anew that was handed out in part: its first changes are left out. */
  continue(unfinished: Unfinished): void {
    this.#skipId = unfinished.id
    this.#skip = unfinished.changes
  }

  begin(id: string, timeUs: bigint): void {
    if (this.#open) throw new Fault('protocol', `read transaction ${id}: another one is open`)
    if (this.#skipId !== undefined && this.#skipId !== id) {
      const part = `transaction ${this.#skipId}, of which ${this.#skip} changes were handed out,`
      throw new Fault('source-changed', `read changes: ${part} does not come again, but ${id}`, {
        hint: 'The server lost what it had sent. Begin the copy anew.',
      })
    }
    this.#open = { id, timeUs, origin: undefined }
    this.#begins = this.#skipId === undefined
  }

  origin(name: string): void {
    if (this.#open) this.#open.origin = name
  }

  /** Whether the change that comes now was handed out before. */
  skips(): boolean {
    if (!this.#open)
      throw new Fault('protocol', 'read the change stream: a change outside of a transaction')
    if (this.#skip === 0) return false
    this.#skip -= 1
    return true
  }

  /** The index in `cells` of so many numbers for one row of a run; the row has been put into the run with it. */
  room(run: Pick<RowRun, 'kind' | 'relation' | 'bytes'>, width: number, sizeBytes: number): number {
    const { kind, relation, bytes } = run
    // A cut comes before a row, not behind the last one: what ends a transaction is then never empty for it.
    if (this.#openRows >= this.#rowsMax || this.#openBytes >= this.#bytesMax) this.#cutPiece()
    if (relation !== this.#relation || kind !== this.#kind || bytes !== this.#bytes) {
      this.#closeRun()
      this.#kind = kind
      this.#relation = relation
      this.#bytes = bytes
    }
    if (this.#fill + width > this.cells.length) this.#grow(width)
    const at = this.#fill
    this.#fill += width
    this.#runRows += 1
    this.#openRows += 1
    this.#openBytes += sizeBytes + width * 4
    return at
  }

  truncate(truncation: Truncation): void {
    this.#closeRun()
    this.#changes.push(truncation)
    this.#openRows += 1
  }

  commit(position: Position): void {
    this.#endPiece(true, position)
    this.#open = undefined
    this.#begins = true
    this.#skipId = undefined
    this.#skip = 0
    if (this.#done.length >= transactionsMax) this.#cutDone()
  }

  /** What can be handed out now; of an open transaction nothing but the pieces that were cut off it. */
  take(): readonly Batch[] {
    this.#cutDone()
    const batches = this.#ready
    this.#ready = []
    return batches
  }

  #grow(width: number): void {
    const kept = this.cells.subarray(this.#runFrom, this.#fill)
    const cells = new Int32Array(
      Math.max(cellsMin, Math.min(cellsMax, this.cells.length * 2), (kept.length + width) * 2),
    )
    cells.set(kept)
    this.cells = cells
    this.#runFrom = 0
    this.#fill = kept.length
  }

  #closeRun(): void {
    const relation = this.#relation
    if (relation && this.#runRows > 0) {
      this.#changes.push({
        kind: this.#kind,
        relation,
        rows: this.#runRows,
        bytes: this.#bytes,
        cells: this.cells.subarray(this.#runFrom, this.#fill),
      })
    }
    this.#runFrom = this.#fill
    this.#runRows = 0
    this.#relation = undefined
  }

  #cutPiece(): void {
    this.#cutDone()
    this.#endPiece(false, undefined)
    this.#cutDone()
    this.#begins = false
  }

  #endPiece(ends: boolean, position: Position | undefined): void {
    this.#closeRun()
    const open = this.#open
    if (!open) throw new Fault('protocol', 'read the change stream: a commit without a begin')
    if (
      this.#doneRows + this.#openRows > this.#rowsMax ||
      this.#doneBytes + this.#openBytes > this.#bytesMax
    ) {
      this.#cutDone()
    }
    const changes = this.#changes
    const last = this.#done.at(-1)
    // Transactions that hold nothing we want only move the position: the last of them says it for all.
    if (changes.length === 0 && this.#begins && last?.begins && last.changes.length === 0)
      this.#done.pop()
    this.#done.push({ ...open, begins: this.#begins, ends, changes, position })
    this.#doneRows += this.#openRows
    this.#doneBytes += this.#openBytes
    this.#changes = []
    this.#openRows = 0
    this.#openBytes = 0
  }

  #cutDone(): void {
    if (this.#done.length === 0) return
    this.#ready.push({
      kind: 'batch',
      transactions: this.#done,
      rows: this.#doneRows,
      sizeBytes: this.#doneBytes,
    })
    this.#done = []
    this.#doneRows = 0
    this.#doneBytes = 0
  }
}
