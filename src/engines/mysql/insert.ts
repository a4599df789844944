import { Fault } from '#base/faults'
import { loadedValue } from './catalog.ts'
import { complain, type LoadTable } from './complain.ts'
import type { Session } from './protocol/session.ts'
import { quoteName, quoteNames } from './sql.ts'

/** A statement of rows is sent at this size. */
const statementBytes = 1024 * 1024
const newline = 10
const tab = 9
const backslash = 0x5c
const quote = 0x27

/** Puts lines of LOAD DATA in by INSERT statements within the caller's transaction, for a target that takes no local files. */
export async function insertRows(
  session: Session,
  table: LoadTable,
  content: AsyncIterable<Buffer>,
  signal: AbortSignal,
): Promise<{ readonly affectedRows: number }> {
  const names = table.columns.map((column) => quoteName(column.name)).join(',')
  const head = Buffer.from(
    `INSERT INTO ${quoteNames(table.database, table.name)} (${names}) VALUES `,
  )
  let values: Buffer[] = []
  let size = 0
  let affectedRows = 0
  const send = async () => {
    if (values.length === 0) return
    const sql = Buffer.concat([
      head,
      ...values.flatMap((row, at) => (at === 0 ? [row] : [comma, row])),
    ])
    const done = await session.query(sql, { signal })
    affectedRows += done.affectedRows
    if (done.warnings > 0) await complain(session, table, done.warnings, signal)
    values = []
    size = 0
  }
  for await (const line of lines(content)) {
    const row = toValues(line, table)
    values.push(row)
    size += row.length
    if (size >= statementBytes) await send()
  }
  await send()
  return { affectedRows }
}

const comma = Buffer.from(',')

/** Cuts at newlines: within a cell they are escaped. */
async function* lines(content: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, void> {
  let parts: Buffer[] = []
  for await (const chunk of content) {
    let start = 0
    for (let end = chunk.indexOf(newline); end >= 0; end = chunk.indexOf(newline, start)) {
      yield Buffer.concat([...parts, chunk.subarray(start, end)])
      parts = []
      start = end + 1
    }
    parts.push(chunk.subarray(start))
  }
  if (parts.some((part) => part.length > 0)) {
    throw new Fault('corrupt', 'read rows: the last line has no end')
  }
}

/** The escapes of a line mean the same in a string literal; quotes get theirs. */
function toValues(line: Buffer, table: LoadTable): Buffer {
  const out: Buffer[] = [Buffer.from('(')]
  let start = 0
  for (const [index, column] of table.columns.entries()) {
    const found = line.indexOf(tab, start)
    const end = found < 0 ? line.length : found
    const cell = line.subarray(start, end)
    if (index > 0) out.push(comma)
    if (cell.length === 2 && cell[0] === backslash && cell[1] === 0x4e)
      out.push(Buffer.from('NULL'))
    else if (loadedValue(column.load, '') !== undefined) {
      const value = `_binary'${quoted(cell).toString('latin1')}'`
      out.push(Buffer.from(loadedValue(column.load, value) ?? value, 'latin1'))
    } else out.push(Buffer.from("_binary'"), quoted(cell), Buffer.from("'"))
    start = end + 1
  }
  out.push(Buffer.from(')'))
  return Buffer.concat(out)
}

function quoted(cell: Buffer): Buffer {
  if (!cell.includes(quote)) return cell
  return Buffer.from(cell.toString('latin1').replaceAll("'", "''"), 'latin1')
}
