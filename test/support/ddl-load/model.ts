/** What transaction `n` does: rows for the most part, now and then a change of the schema. */
export type Step =
  | { readonly kind: 'insert'; readonly note: string }
  | { readonly kind: 'delete'; readonly row: number }
  | { readonly kind: 'add-column'; readonly column: string; readonly value: number }
  | { readonly kind: 'create-table' | 'drop-table'; readonly table: string }
  | { readonly kind: 'create-index' | 'drop-index'; readonly index: string }

const period = 20
const notes = ["it's", 'a "quote"', '数据', 'line\nbreak', 'back\\slash', '🙂', 'semi;colon', '']

/** Every transaction is known from its number alone, and so is the state behind any of them. */
export function stepOf(n: number): Step {
  const round = Math.floor(n / period)
  switch (n % period) {
    case 0:
      return { kind: 'add-column', column: `c${round}`, value: round }
    case 5:
      return { kind: 'create-table', table: `extra_${round}` }
    case 15:
      return { kind: 'drop-table', table: `extra_${round}` }
    case 8:
      return { kind: 'create-index', index: `by_note_${round}` }
    case 18:
      return { kind: 'drop-index', index: `by_note_${round}` }
    case 12:
      return { kind: 'delete', row: n - 3 }
    default:
      return { kind: 'insert', note: `${n} ${notes[n % notes.length]}` }
  }
}

/** A database's state in words that both engines can be asked for. */
export type State = {
  readonly rows: readonly string[]
  readonly columns: readonly string[]
  readonly tables: readonly string[]
  readonly indexes: readonly string[]
}

/** The state behind the first `count` transactions. */
export function stateAfter(count: number): State {
  const rows = new Map<number, string>()
  const columns: [name: string, value: number][] = []
  const tables = new Set(['events'])
  const indexes = new Set<string>()
  for (let n = 1; n <= count; n++) {
    const step = stepOf(n)
    switch (step.kind) {
      case 'insert':
        rows.set(n, step.note)
        break
      case 'delete':
        rows.delete(step.row)
        break
      case 'add-column':
        columns.push([step.column, step.value])
        break
      case 'create-table':
        tables.add(step.table)
        break
      case 'drop-table':
        tables.delete(step.table)
        break
      case 'create-index':
        indexes.add(step.index)
        break
      case 'drop-index':
        indexes.delete(step.index)
        break
    }
  }
  const added = columns.map(([, value]) => String(value))
  return {
    rows: [...rows].map(([n, note]) => [n, note, ...added].join('|')),
    columns: ['n', 'note', ...columns.map(([name]) => name)],
    tables: [...tables].toSorted(),
    indexes: [...indexes].toSorted(),
  }
}

/** The statements of a step, for either engine. */
export function statementsOf(
  n: number,
  mysql: boolean,
): readonly { sql: string; values: (string | number)[] }[] {
  const step = stepOf(n)
  switch (step.kind) {
    case 'insert': {
      const marks = mysql ? '?, ?' : '$1, $2'
      return [{ sql: `INSERT INTO events (n, note) VALUES (${marks})`, values: [n, step.note] }]
    }
    case 'delete':
      return [{ sql: `DELETE FROM events WHERE n = ${step.row}`, values: [] }]
    case 'add-column':
      return [
        {
          sql: `ALTER TABLE events ADD COLUMN ${step.column} int NOT NULL DEFAULT ${step.value}`,
          values: [],
        },
      ]
    case 'create-table':
      return [{ sql: `CREATE TABLE ${step.table} (id int PRIMARY KEY)`, values: [] }]
    case 'drop-table':
      return [{ sql: `DROP TABLE ${step.table}`, values: [] }]
    case 'create-index':
      return [{ sql: `CREATE INDEX ${step.index} ON events (note)`, values: [] }]
    case 'drop-index':
      return [{ sql: `DROP INDEX ${step.index}${mysql ? ' ON events' : ''}`, values: [] }]
  }
}
