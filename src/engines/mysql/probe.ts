import type { Finding } from '#change/finding'
import type { Use } from '#engines'
import { isTransactional, systemDatabases } from './catalog.ts'
import type { Flavor } from './flavor.ts'
import type { Session } from './protocol/session.ts'
import { readVariables } from './server.ts'

/** The newest series that were tried. */
const newest = { mysql: 90_700, mariadb: 120_299 } as const

const names = [
  'log_bin',
  'binlog_format',
  'binlog_row_image',
  'binlog_row_metadata',
  'binlog_checksum',
  'binlog_storage_engine',
  'binlog_expire_logs_seconds',
  'expire_logs_days',
  'gtid_mode',
  'sync_binlog',
  'innodb_flush_log_at_trx_commit',
  'log_slave_updates',
  'log_replica_updates',
  'server_id',
  'local_infile',
  'encrypt_binlog',
]

const retentionWarnSeconds = 24 * 3600

type Context = {
  readonly session: Session
  readonly flavor: Flavor
  readonly use: Use
  readonly signal: AbortSignal
  readonly variables: ReadonlyMap<string, string>
  readonly account: string
}

/** Looks for everything that would make a backup or a protection fail, or be worth less than it seems. */
export async function probeMysql(
  session: Session,
  flavor: Flavor,
  use: Use,
  signal: AbortSignal,
): Promise<Finding[]> {
  const variables = await readVariables(session, names, signal)
  const account = (await session.one('SELECT CURRENT_USER()', { signal }))?.[0] ?? ''
  const context = { session, flavor, use, signal, variables, account }
  // What a target must allow depends on what is made there: see the check of a schema.
  if (use === 'migrate-to' || use === 'sync-to') return checkVersion(context)
  if (use === 'sync-from') {
    return [...checkVersion(context), ...checkChanges(context), ...(await checkRights(context))]
  }
  return [
    ...checkVersion(context),
    ...(isProtection(use) ? checkLog(context) : []),
    ...(await checkRights(context)),
    ...(await checkTables(context)),
    ...(use === 'protect-strict' ? await checkSemiSync(context) : []),
  ]
}

/** Whether the log is read on and on. */
function isProtection(use: Use): boolean {
  return use === 'protect' || use === 'protect-strict'
}

function checkVersion({ flavor }: Context): Finding[] {
  if (flavor.number <= newest[flavor.family]) return []
  return [
    {
      severity: 'notes',
      code: 'version-untried',
      said: `${flavor.version} is newer than the versions that were tried`,
    },
  ]
}

function checkLog({ variables, flavor }: Context): Finding[] {
  const value = (name: string) => variables.get(name)?.toUpperCase() ?? ''
  if (value('log_bin') !== 'ON') return [logFindings.off]
  const keepSeconds = retention(variables)
  const image = value('binlog_row_image')
  const found: (Finding | false)[] = [
    value('binlog_storage_engine') !== '' && logFindings.inEngine,
    value('binlog_format') === 'STATEMENT' && logFindings.statement,
    value('binlog_format') === 'MIXED' && logFindings.mixed,
    image !== '' && image !== 'FULL' && logFindings.image,
    value('binlog_checksum') === 'NONE' && logFindings.checksum,
    value('sync_binlog') !== '1' && logFindings.notSynced,
    value('innodb_flush_log_at_trx_commit') !== '1' && logFindings.redo,
    flavor.family === 'mysql' && value('gtid_mode') !== 'ON' && logFindings.gtid,
    keepSeconds > 0 && keepSeconds < retentionWarnSeconds && keptShort(flavor, keepSeconds),
  ]
  return found.filter((finding) => finding !== false)
}

/** What keeps the log from being decoded row by row. */
function checkChanges({ variables, flavor }: Context): Finding[] {
  const value = (name: string) => variables.get(name)?.toUpperCase() ?? ''
  if (value('log_bin') !== 'ON') return [logFindings.off]
  const keepSeconds = retention(variables)
  const metadata = value('binlog_row_metadata')
  const found: (Finding | false)[] = [
    value('binlog_format') !== 'ROW' && logFindings.statementRows,
    metadata !== 'FULL' && metadata !== '' && logFindings.names,
    metadata === '' && logFindings.noNames,
    keepSeconds > 0 && keepSeconds < retentionWarnSeconds && keptShort(flavor, keepSeconds),
  ]
  return found.filter((finding) => finding !== false)
}

const logFindings = {
  off: {
    severity: 'blocks',
    code: 'log-bin-off',
    said: 'the server writes no binary log',
    mend: 'log_bin = binlog  # in the server configuration, then restart',
  },
  inEngine: {
    severity: 'blocks',
    code: 'binlog-in-innodb',
    said: 'the binary log is kept inside a storage engine: it has no files to archive',
    mend: 'binlog_storage_engine =   # empty, in the server configuration, then restart',
  },
  statement: {
    severity: 'blocks',
    code: 'binlog-format-statement',
    said: 'statements in the log do not always give the same rows again',
    mend: 'SET GLOBAL binlog_format = ROW; -- then let all sessions reconnect',
  },
  mixed: {
    severity: 'warns',
    code: 'binlog-format-mixed',
    said: 'some changes are logged as statements, which need not give the same rows again',
    mend: 'SET GLOBAL binlog_format = ROW; -- then let all sessions reconnect',
  },
  statementRows: {
    severity: 'blocks',
    code: 'binlog-format-not-row',
    said: 'changes are logged as statements: the rows that they changed are not in the log',
    mend: 'SET GLOBAL binlog_format = ROW; -- then let all sessions reconnect',
  },
  names: {
    severity: 'warns',
    code: 'log-without-names',
    said: 'the log does not name columns: a table that is altered before its changes were read cannot be followed',
    mend: 'SET GLOBAL binlog_row_metadata = FULL',
  },
  noNames: {
    severity: 'notes',
    code: 'log-without-names',
    said: 'this version does not name columns in its log: alter no table whose changes were not read yet',
  },
  image: {
    severity: 'notes',
    code: 'row-image-not-full',
    said: 'row images are not full: fine for restores, too little to undo single transactions',
    mend: 'SET GLOBAL binlog_row_image = FULL',
  },
  checksum: {
    severity: 'warns',
    code: 'no-checksum',
    said: 'events of the log bear no checksum: damage on the way is not seen',
    mend: 'SET GLOBAL binlog_checksum = CRC32',
  },
  notSynced: {
    severity: 'warns',
    code: 'log-not-synced',
    said: 'after a crash the server may forget what it sent to the archive',
    mend: 'SET GLOBAL sync_binlog = 1',
  },
  redo: {
    severity: 'warns',
    code: 'redo-not-synced',
    said: 'after a crash the server may lack transactions that its log has',
    mend: 'SET GLOBAL innodb_flush_log_at_trx_commit = 1',
  },
  gtid: {
    severity: 'notes',
    code: 'no-gtid',
    said: 'without GTIDs the log of another server cannot be joined after a failover',
    mend: 'gtid_mode = ON and enforce_gtid_consistency = ON  # in the server configuration',
  },
} as const satisfies Record<string, Finding>

function keptShort(flavor: Flavor, keepSeconds: number): Finding {
  const old = flavor.family === 'mysql' && flavor.number < 80_000
  const seconds = flavor.family === 'mysql' || flavor.number >= 100_601
  return {
    severity: 'warns',
    code: 'log-kept-short',
    said: `the server keeps its log for ${Math.round(keepSeconds / 60)} minutes: a longer outage of the archive makes a gap`,
    mend:
      seconds && !old
        ? 'SET GLOBAL binlog_expire_logs_seconds = 259200'
        : 'SET GLOBAL expire_logs_days = 3',
  }
}

/** Seconds; 0 for ever. */
function retention(variables: ReadonlyMap<string, string>): number {
  const seconds = Number(variables.get('binlog_expire_logs_seconds') ?? 0)
  return seconds > 0 ? seconds : Number(variables.get('expire_logs_days') ?? 0) * 86_400
}

/** Which rights each use needs; any one of a list will do. */
function neededRights(flavor: Flavor, use: Use): readonly (readonly string[])[] {
  const { family, number } = flavor
  const all = ['ALL PRIVILEGES', 'SUPER']
  const follows = use === 'sync-from'
  const base = [
    ['SELECT'],
    ['RELOAD', 'FLUSH_TABLES'],
    ['LOCK TABLES'],
    ['SHOW VIEW'],
    ['TRIGGER'],
    ['EVENT'],
  ]
  const client =
    family === 'mariadb'
      ? [['BINLOG MONITOR', 'REPLICATION CLIENT', 'SUPER']]
      : [['REPLICATION CLIENT', 'SUPER']]
  const replica = isProtection(use) || follows ? [['REPLICATION SLAVE']] : []
  if (follows)
    return [['SELECT'], ...client, ...replica].map((list) => [...list, ...all.slice(0, 1)])
  const lock = family === 'mysql' && number >= 80_000 ? [['BACKUP_ADMIN']] : []
  return [...base, ...client, ...replica, ...lock].map((list) => [...list, ...all.slice(0, 1)])
}

async function checkRights({ session, flavor, use, signal, account }: Context): Promise<Finding[]> {
  const grants = await readGrants(session, flavor, signal)
  // Rights on everything only: a backup is of all databases.
  const held = new Set(
    grants
      .filter((grant) => / ON \*\.\* TO /.test(grant))
      .flatMap((grant) => (/^GRANT (.*?) ON \*\.\*/.exec(grant)?.[1] ?? '').split(/,\s*/)),
  )
  const missing = neededRights(flavor, use).filter((list) => !list.some((right) => held.has(right)))
  const to = account.replace(/^(.*)@(.*)$/, `'$1'@'$2'`)
  return missing.map(([right = '']) => ({
    severity: right === 'BACKUP_ADMIN' ? ('warns' as const) : ('blocks' as const),
    code: `no-${right.toLowerCase().replaceAll(/[ _]/g, '-')}-right`,
    said: `${account} lacks the right ${right}`,
    mend: `GRANT ${right} ON *.* TO ${to}`,
  }))
}

/** With what the roles in force bring, which MySQL shows only when they are named. */
async function readGrants(
  session: Session,
  flavor: Flavor,
  signal: AbortSignal,
): Promise<string[]> {
  const hasRoles = flavor.family === 'mysql' && flavor.number >= 80_000
  const roles = hasRoles ? (await session.one('SELECT CURRENT_ROLE()', { signal }))?.[0] : undefined
  const using = roles && roles !== 'NONE' ? ` FOR CURRENT_USER() USING ${roles}` : ''
  return (await session.texts(`SHOW GRANTS${using}`, { signal })).map(([grant]) => grant ?? '')
}

/** Tables that no transaction covers are locked while they are copied; this shows how long that may be. */
async function checkTables({ session, signal }: Context): Promise<Finding[]> {
  const system = [...systemDatabases].map((name) => `'${name}'`).join(',')
  const rows = await session.texts(
    `SELECT ENGINE, COUNT(*), CAST(COALESCE(SUM(DATA_LENGTH), 0) AS UNSIGNED) FROM information_schema.TABLES
     WHERE TABLE_TYPE = 'BASE TABLE' AND TABLE_SCHEMA NOT IN (${system}) GROUP BY ENGINE`,
    { signal },
  )
  return rows
    .filter(([engine]) => engine && !isTransactional(engine))
    .map(([engine, count, size]) => ({
      severity: 'warns' as const,
      code: 'tables-without-transactions',
      said: `${count} tables of ${engine} with ${size} bytes are locked against writes while they are copied`,
      mend: 'ALTER TABLE ... ENGINE = InnoDB',
    }))
}

async function checkSemiSync({ session, flavor, signal }: Context): Promise<Finding[]> {
  const word = flavor.sourceWords ? 'source' : 'master'
  const rows = await session.texts(`SHOW GLOBAL VARIABLES LIKE 'rpl_semi_sync_%'`, { signal })
  const variables = new Map(rows.map(([name, value]) => [name ?? '', value ?? '']))
  const value = (name: string) =>
    variables.get(`rpl_semi_sync_${word}_${name}`) ?? variables.get(`rpl_semi_sync_master_${name}`)
  if (value('enabled') === undefined) {
    const library = flavor.sourceWords ? 'semisync_source.so' : 'semisync_master.so'
    return [
      {
        severity: 'blocks',
        code: 'no-semi-sync',
        said: 'the server has no semi-synchronous replication: commits cannot wait for the vault',
        mend: `INSTALL PLUGIN rpl_semi_sync_${word} SONAME '${library}'; SET GLOBAL rpl_semi_sync_${word}_enabled = ON`,
      },
    ]
  }
  const findings: Finding[] = []
  if (value('enabled') !== 'ON') {
    findings.push({
      severity: 'blocks',
      code: 'semi-sync-off',
      said: 'semi-synchronous replication is off: commits do not wait for the vault',
      mend: `SET GLOBAL rpl_semi_sync_${word}_enabled = ON`,
    })
  }
  if (value('wait_point') === 'AFTER_COMMIT') {
    findings.push({
      severity: 'warns',
      code: 'semi-sync-after-commit',
      said: 'other sessions see a transaction before the vault has it',
      mend: `SET GLOBAL rpl_semi_sync_${word}_wait_point = AFTER_SYNC`,
    })
  }
  const timeoutMs = Number(value('timeout'))
  if (timeoutMs < 3_600_000) {
    findings.push({
      severity: 'warns',
      code: 'semi-sync-timeout',
      said: `after ${timeoutMs} ms without the vault the server goes on without it: losses are possible from then on`,
      mend: `SET GLOBAL rpl_semi_sync_${word}_timeout = 4294967295`,
    })
  }
  return findings
}
