import { randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import type { Protection } from '../../src/demo/redoubt.ts'
import { parseLsn, toAt } from '../../src/engines/postgres/lsn.ts'
import { type Guarded, hear } from './guarded.ts'
import { logEnd } from './mysql-family-harness.ts'
import { startMariadb } from './servers/mariadb.ts'
import type { FamilyServer } from './servers/mysql-family.ts'
import { type PostgresServer, type PostgresVersion, startPostgres } from './servers/postgres.ts'

/** A server with one table of numbers: all that a story about moments needs of it, whatever engine it is. */
export type Numbers = {
  readonly url: string
  readonly insert: (...numbers: readonly number[]) => Promise<unknown>
  /** Waits until a commit bears another time than those before it. */
  readonly nextTick: () => Promise<void>
  /** A time behind all commits so far, and before those that follow. */
  readonly momentAfterAll: () => Promise<string>
  /** Until the vault has the server's log to its present end: by positions, whatever clocks say. */
  readonly untilStored: (protection: Protection) => Promise<void>
}

/** Where one moment after the other is restored to. */
export interface Landings extends AsyncDisposable {
  /** Restores; the process's end is the caller's to judge. */
  restore(at: string): ReturnType<Guarded['restore']>
  /** The numbers that the newest restore brought. */
  numbers(): Promise<number[]>
  /** Whether restores that were refused left nothing. */
  untouched(): Promise<boolean>
}

/** Drops all replication slots, once the server has noticed that nobody reads from them any more. */
export const dropSlots = [
  'do $$ begin while exists (select from pg_replication_slots where active) loop perform pg_sleep(0.02); end loop; end $$',
  'select pg_drop_replication_slot(slot_name) from pg_replication_slots',
] as const

export async function makeNumbers(server: PostgresServer | FamilyServer): Promise<Numbers> {
  if ('scheme' in server) {
    await server.query('create database shop; create table shop.t (n int primary key)')
    return familyNumbers(server)
  }
  await server.query('create table t (n int primary key)')
  return postgresNumbers(server)
}

export function postgresNumbers(server: PostgresServer): Numbers {
  return {
    url: server.url,
    insert: (...numbers) => server.query('insert into t select unnest($1::int[])', [numbers]),
    nextTick: async () => undefined,
    momentAfterAll: async () => {
      const [row] = await server.query<{ at: string }>(
        `select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at`,
      )
      return row?.at ?? ''
    },
    untilStored: async (protection) => {
      const [row] = await server.query<{ lsn: string }>('select pg_current_wal_flush_lsn() as lsn')
      const end = toAt(parseLsn(row?.lsn ?? ''))
      await hear(protection, ({ vaults }) => (vaults[0]?.durable ?? '') >= end)
    },
  }
}

/** Commits and files of this family bear whole seconds. */
export function familyNumbers(server: FamilyServer): Numbers {
  const nextTick = async () =>
    void (await server.query('do sleep(1.1 - mod(unix_timestamp(now(6)), 1))'))
  return {
    url: server.url,
    insert: (...numbers) =>
      server.query(`insert into shop.t values ${numbers.map((n) => `(${n})`).join()}`),
    nextTick,
    momentAfterAll: async () => {
      await nextTick()
      const [row] = await server.query<{ at: string }>(
        `select date_format(utc_timestamp(), '%Y-%m-%dT%H:%i:%sZ') as at`,
      )
      await nextTick()
      return row?.at ?? ''
    },
    untilStored: async (protection) => {
      const end = await logEnd(server)
      await hear(protection, ({ vaults }) => (vaults[0]?.durable ?? '').slice(0, 23) >= end)
    },
  }
}

/** Each restore into a folder of its own, and a server on it to look. */
export class FolderLandings implements Landings {
  readonly #guarded: Guarded
  readonly #version: PostgresVersion | undefined
  #folder = ''

  constructor(guarded: Guarded, version?: PostgresVersion) {
    this.#guarded = guarded
    this.#version = version
  }

  restore(at: string): ReturnType<Guarded['restore']> {
    this.#folder = this.#guarded.scratch.join(`restored-${randomUUID()}`)
    return this.#guarded.restore('--to', this.#folder, '--at', at)
  }

  async numbers(): Promise<number[]> {
    const how = { dataDir: this.#folder, version: this.#version }
    await using server = await startPostgres(how)
    const rows = await server.query<{ n: number }>('select n from t order by n')
    return rows.map(({ n }) => n)
  }

  async untouched(): Promise<boolean> {
    return !existsSync(this.#folder)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The scratch folder is the test's.
  }
}

/** Each restore over the one before it, in one live server. */
export class ServerLandings implements Landings {
  readonly #guarded: Guarded
  readonly #server: FamilyServer

  constructor(guarded: Guarded, server: FamilyServer) {
    this.#guarded = guarded
    this.#server = server
  }

  static async begin(guarded: Guarded, start = startMariadb): Promise<ServerLandings> {
    return new ServerLandings(guarded, await start())
  }

  restore(at: string): ReturnType<Guarded['restore']> {
    return this.#guarded.restore('--to', this.#server.url, '--force', '--at', at)
  }

  async numbers(): Promise<number[]> {
    const rows = await this.#server.query<{ n: number }>('select n from shop.t order by n')
    return rows.map(({ n }) => n)
  }

  async untouched(): Promise<boolean> {
    return (await this.#server.query(`show databases like 'shop'`)).length === 0
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#server[Symbol.asyncDispose]()
  }
}
