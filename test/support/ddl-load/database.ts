import mysql from 'mysql2/promise'
import pg from 'pg'
import { type State, statementsOf } from './model.ts'

/** A connection that plays the load's transactions and reads the state that they left. */
export interface LoadDatabase extends AsyncDisposable {
  prepare(): Promise<void>
  /** Runs transaction `n`; it is committed when the call returns. */
  run(n: number): Promise<void>
  read(): Promise<State>
}

const createEvents = 'CREATE TABLE events (n int PRIMARY KEY, note varchar(80) NOT NULL)'

export async function openLoadDatabase(url: string): Promise<LoadDatabase> {
  return url.startsWith('postgres') ? openPostgres(url) : openMariadb(url)
}

async function openPostgres(url: string): Promise<LoadDatabase> {
  const client = new pg.Client(url)
  client.on('error', () => undefined)
  await client.connect()
  const list = async (sql: string) =>
    (await client.query<string[]>({ text: sql, rowMode: 'array' })).rows
  return {
    prepare: async () => void (await client.query(createEvents)),
    async run(n) {
      for (const { sql, values } of statementsOf(n, false)) await client.query(sql, values)
    },
    async read() {
      const rows = await list('SELECT * FROM events ORDER BY n')
      const columns = await list(
        `SELECT column_name FROM information_schema.columns WHERE table_name = 'events' ORDER BY ordinal_position`,
      )
      const tables = await list(
        `SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1`,
      )
      const indexes = await list(
        `SELECT indexname FROM pg_indexes WHERE schemaname = 'public' AND indexname LIKE 'by\\_note%' ORDER BY 1`,
      )
      return toState(rows, columns, tables, indexes)
    },
    [Symbol.asyncDispose]: () => client.end(),
  }
}

async function openMariadb(url: string): Promise<LoadDatabase> {
  const connection = await mysql.createConnection(url.replace(/^mariadb:/, 'mysql:'))
  connection.on('error', () => undefined)
  const list = async (sql: string) =>
    (await connection.query({ sql, rowsAsArray: true }))[0] as unknown as string[][]
  return {
    prepare: async () => void (await connection.query(`${createEvents} CHARACTER SET utf8mb4`)),
    async run(n) {
      for (const { sql, values } of statementsOf(n, true)) await connection.query(sql, values)
    },
    async read() {
      const rows = await list('SELECT * FROM events ORDER BY n')
      const columns = await list(
        `SELECT column_name FROM information_schema.columns WHERE table_schema = database() AND table_name = 'events' ORDER BY ordinal_position`,
      )
      const tables = await list(
        'SELECT table_name FROM information_schema.tables WHERE table_schema = database() ORDER BY 1',
      )
      const indexes = await list(
        `SELECT DISTINCT index_name FROM information_schema.statistics WHERE table_schema = database() AND index_name LIKE 'by\\_note%' ORDER BY 1`,
      )
      return toState(rows, columns, tables, indexes)
    },
    [Symbol.asyncDispose]: async () => connection.destroy(),
  }
}

function toState(
  rows: readonly (readonly unknown[])[],
  ...lists: readonly (readonly (readonly string[])[])[]
): State {
  const [columns = [], tables = [], indexes = []] = lists.map((list) =>
    list.map((row) => row[0] ?? ''),
  )
  return {
    rows: rows.map((row) => row.join('|')),
    columns,
    tables: tables.toSorted(),
    indexes: indexes.toSorted(),
  }
}
