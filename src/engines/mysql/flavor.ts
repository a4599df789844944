import { Fault } from '#base/faults'

/** Which of the two families a server is of, and what its version can do. */
export type Flavor = {
  readonly family: 'mysql' | 'mariadb'
  /** As shown: `10.11.19-MariaDB`. */
  readonly version: string
  /** `10.11.19` as 101119; comparable within a family only. */
  readonly number: number
  /** The statement that tells where the binary log ends. */
  readonly logStatus: string
  /** Backup stages block commits without closing tables. */
  readonly backupStages: boolean
  /** `LOCK INSTANCE FOR BACKUP` keeps DDL away. */
  readonly instanceLock: boolean
  /** `performance_schema.log_status` tells positions with no commit under way. */
  readonly performanceLogStatus: boolean
  /** The words of newer MySQL: source and replica. */
  readonly sourceWords: boolean
  /** Commits carry microseconds. */
  readonly commitTimeUs: boolean
  /** Foreign key cascades are in the binary log. */
  readonly cascadesLogged: boolean
}

/** Reads `@@version`. */
export function parseFlavor(version: string): Flavor {
  const match = /(\d+)\.(\d+)\.(\d+)/.exec(version.replace(/^5\.5\.5-(?=\d+\.)/, ''))
  if (!match) throw new Fault('unsupported', `read server version: ${version} is none`)
  const [major = 0, minor = 0, patch = 0] = match.slice(1).map(Number)
  const number = major * 10_000 + minor * 100 + patch
  const mariadb = /mariadb/i.test(version)
  const newer = (since: number) => !mariadb && number >= since
  return {
    family: mariadb ? 'mariadb' : 'mysql',
    version,
    number,
    logStatus: newer(80_200) ? 'SHOW BINARY LOG STATUS' : 'SHOW MASTER STATUS',
    backupStages: mariadb && number >= 100_401,
    instanceLock: newer(80_000),
    performanceLogStatus: newer(80_011),
    sourceWords: newer(80_026),
    commitTimeUs: newer(80_001),
    cascadesLogged: newer(90_600),
  }
}
