import { randomBytes } from 'node:crypto'
import { chmod, chown, readdir, rm, writeFile } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { RestoreRequest } from '#engines'
import { findBackupProgram } from './physical.ts'
import { LocalServer, makeServerFolder, type Programs, runProgram, serverUser } from './scratch.ts'
import { Session } from './protocol/session.ts'
import { quotePlain } from './sql.ts'

/** A restored server's accounts are not ours: one of our own opens it, and is gone when we are done. */
const account = 'redoubt-restore'
const initName = 'redoubt-init.sql'

/** Lays the files of a physical base out and has the backup program make them consistent. */
export async function layOutPhysical(
  request: Omit<RestoreRequest, 'to' | 'start' | 'force'>,
  directory: string,
): Promise<void> {
  const { base, files, signal, progress, serverBin } = request
  const program = findBackupProgram(base.flavor === 'mariadb' ? 'mariadb' : 'mysql', serverBin)
  progress.phase = 'lay out data files'
  await makeServerFolder(directory)
  await files.layOut(directory, { signal, progress })
  await giveAway(directory)
  progress.phase = 'prepare data files'
  await runProgram(program, ['--no-defaults', '--prepare', `--target-dir=${directory}`], signal)
}

/** The server does not run as root: all of it becomes its user's. */
async function giveAway(directory: string): Promise<void> {
  for (const entry of await readdir(directory, { withFileTypes: true, recursive: true })) {
    const path = join(entry.parentPath, entry.name)
    await chmod(path, entry.isDirectory() ? 0o700 : 0o600)
    if (serverUser) await chown(path, serverUser.uid, serverUser.gid)
  }
}

/** What the data files need of the server's settings, as the backup program wrote it down. */
export function ownDefaults(directory: string): string | undefined {
  const path = join(directory, 'backup-my.cnf')
  return existsSync(path) ? path : undefined
}

/** Starts the prepared server with an account of ours in it. */
export async function startPrepared(
  programs: Programs,
  directory: string,
  settings: readonly string[],
  signal: AbortSignal,
): Promise<LocalServer> {
  const password = randomBytes(18).toString('base64url')
  const name = `${quotePlain(account)}@'localhost'`
  const init = join(directory, initName)
  // One statement a line: the server reads the file line by line.
  const lines = [
    `CREATE USER ${name} IDENTIFIED BY ${quotePlain(password)};`,
    `GRANT ALL PRIVILEGES ON *.* TO ${name} WITH GRANT OPTION;`,
  ]
  await writeFile(init, `${lines.join('\n')}\n`, { mode: 0o600 })
  if (serverUser) await chown(init, serverUser.uid, serverUser.gid)
  return LocalServer.start({
    programs,
    dataDirectory: directory,
    signal,
    defaultsFile: ownDefaults(directory),
    settings: [...settings, `init-file=${init}`],
    account: { user: account, password },
  })
}

/** Takes our account out again. */
export async function removeAccount(server: LocalServer, signal: AbortSignal): Promise<void> {
  await using session = await Session.open(server.endpoint, { signal })
  await session.query(`DROP USER ${quotePlain(account)}@'localhost'`, { signal })
  await rm(join(server.dataDirectory, initName), { force: true })
}
