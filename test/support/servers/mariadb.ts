import {
  type FamilyOptions,
  type FamilyServer,
  type Flavor,
  rootPassword,
  startFamily,
} from './mysql-family.ts'
import { runAsServerUser } from './process.ts'
import { service } from './services.ts'

export type MariadbVersion = '10.11' | '11.8'

const services: Readonly<Record<MariadbVersion, string>> = {
  '10.11': 'mariadb10',
  '11.8': 'mariadb11@trixie',
}

/** A private MariaDB with a binlog in ROW format. The user `root` has a password, from everywhere. */
export async function startMariadb(
  options: FamilyOptions & { readonly version?: MariadbVersion | undefined } = {},
): Promise<FamilyServer> {
  return startFamily(await flavor(options.version ?? mariadbVersion()), options)
}

/** The version that tests without a wish of their own run against: REDOUBT_TEST_MARIADB, else 10.11. */
export function mariadbVersion(): MariadbVersion {
  const asked = process.env['REDOUBT_TEST_MARIADB'] ?? '10.11'
  if (asked === '10.11' || asked === '11.8') return asked
  throw new Error(`REDOUBT_TEST_MARIADB=${asked}: only 10.11 and 11.8 can be had`)
}

async function flavor(version: MariadbVersion): Promise<Flavor> {
  const { bin, root, build } = await service(services[version])
  const usr = `${root}/usr`
  const lib = `${usr}/lib/mysql/plugin`
  return {
    scheme: 'mariadb',
    version,
    key: `mariadb-${version}-${build}`,
    server: `${bin}/mariadbd`,
    bin,
    places: [
      `--basedir=${usr}`,
      `--lc-messages-dir=${usr}/share/mysql`,
      `--plugin-dir=${lib}`,
      '--secure-file-priv=',
    ],
    env: {},
    settings: {
      'log-bin': 'binlog',
      'binlog-format': 'ROW',
      'innodb-buffer-pool-size': '64M',
      'innodb-log-file-size': '32M',
      'innodb-flush-log-at-trx-commit': '1',
    },
    initialise: (folder) => {
      // Forced: it would refuse a machine whose own name does not resolve.
      const auth = ['--auth-root-authentication-method=normal', '--skip-test-db', '--force']
      const places = ['--no-defaults', `--basedir=${usr}`, `--datadir=${folder}`]
      runAsServerUser([`${bin}/mariadb-install-db`, ...places, ...auth])
    },
    users: [
      `alter user root@localhost identified by '${rootPassword}'`,
      `grant all on *.* to root@'%' identified by '${rootPassword}' with grant option`,
    ],
  }
}
