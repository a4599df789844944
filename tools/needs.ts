/**
 * What the tests need beyond Node, by the suffix of their names: `x.postgres.test.ts`. Each need lists the services
 * that `tools/services/fetch.sh` must have fetched (`npm` stands for fetch-npm.sh). A file may have several suffixes.
 */
export const needs = {
  postgres: ['postgres17'],
  mariadb: ['mariadb10'],
  mysql: ['mysql9'],
  s3: ['ceph-rgw'],
  restic: ['restic', 'restic@bookworm'],
  age: ['age@bookworm', 'zstd@bookworm'],
  mydumper: ['mydumper@bookworm'],
  faketime: ['faketime'],
  /** Nothing but this machine: disks, processes, the built program. */
  system: [],
  /** Nothing at all, but too long for the unit tests. */
  sim: [],
} as const satisfies Readonly<Record<string, readonly string[]>>

export type Need = keyof typeof needs

export function isNeed(name: string): name is Need {
  return Object.hasOwn(needs, name)
}

/** The suffixes of a test's name; none for a unit test. */
export function suffixesOf(file: string): string[] {
  const name = file.slice(file.lastIndexOf('/') + 1)
  return name.split('.').slice(1, -2)
}

/** The runs of `./check --all` beyond the plain one: which need, and which servers it takes then. */
export const matrix = [
  { need: 'postgres', env: { REDOUBT_TEST_POSTGRES: '15' }, services: ['npm'] },
  { need: 'postgres', env: { REDOUBT_TEST_POSTGRES: '16' }, services: ['npm'] },
  { need: 'postgres', env: { REDOUBT_TEST_POSTGRES: '18' }, services: ['npm'] },
  { need: 'mariadb', env: { REDOUBT_TEST_MARIADB: '11.8' }, services: ['mariadb11@trixie'] },
  { need: 'mysql', env: { REDOUBT_TEST_MYSQL: '5.6' }, services: ['npm'] },
] as const satisfies readonly {
  readonly need: Need
  readonly env: Readonly<Record<string, string>>
  readonly services: readonly string[]
}[]
