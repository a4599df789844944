import { writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Fault, isFault } from '#base/faults'
import { formatTimeUs } from '#base/time'
import type { BaseFacts, RestoreRequest, RestoreResult } from '#engines'
import { restoreOnly } from './extract.ts'
import {
  checkPlaces,
  configured,
  layOutBase,
  type Layout,
  placeTablespaces,
  writeAutoConf,
  writeMissingConfig,
} from './layout.ts'
import { formatHistory, parseHistory, toAt } from './lsn.ts'
import { findPrograms, majorOf, type Programs, serverOwner } from './programs.ts'
import {
  checkNamedTarget,
  missingMinimums,
  planRecovery,
  readyFolder,
  recover,
} from './recovery.ts'
import { freePort, isFree } from './server.ts'
import type { Cut } from './wal-plan.ts'

const portTriesMax = 3

/** Brings a base and the log behind it back: see `EngineKind.restore`. */
export async function restorePostgres(request: RestoreRequest): Promise<RestoreResult> {
  checkBase(request)
  if (request.only.length > 0) return restoreOnly(request)
  if (/^[a-z]+:\/\//.test(request.to)) {
    throw new Fault('usage', `restore to ${request.to}: a whole cluster is restored to a folder`, {
      hint: 'Name a folder with --to, or choose tables or a database with --only.',
    })
  }
  const dataDir = path.resolve(request.to)
  const layout = { dataDir, tablespaces: placeTablespaces(request.base, request.remap) }
  await checkPlaces(layout, request.force)
  const major = majorOf(request.base)
  const programs = request.start ? await findPrograms(major, request.serverBin) : undefined
  await checkNamedTarget(request)
  await layOutBase(request, layout)
  await writeMissingConfig(dataDir, request.base)
  return programs ? startRestored(request, layout, programs) : leaveRestored(request, layout)
}

function checkBase(request: RestoreRequest): void {
  const { base } = request
  if (base.engine !== 'postgres' || base.form !== 'physical') {
    throw new Fault('unsupported', `restore a ${base.form} base of ${base.engine} as PostgreSQL`)
  }
  const { target } = request
  // What was committed before the base was begun is in it, whatever the log behind it says.
  if (target.kind === 'time' && target.timeUs < base.startedUs) {
    const asked = formatTimeUs(target.timeUs)
    throw new Fault(
      'refused',
      `restore to ${asked}: the base is consistent from ${base.consistent.at} on`,
      {
        hint: `That was at ${formatTimeUs(base.consistentUs)}: choose a later moment, or an earlier base.`,
      },
    )
  }
  if (request.archive) return
  const itself = target.kind === 'position' && target.at === base.consistent.at
  if (target.kind === 'latest' || itself) return
  throw new Fault('refused', `restore to a ${target.kind}: there is no log behind the base`, {
    hint: 'Restore the base itself with --at latest.',
  })
}

/** Without a start: the log lies in the folder, and the operator starts the server. */
async function leaveRestored(request: RestoreRequest, layout: Layout): Promise<RestoreResult> {
  const { dataDir } = layout
  const owner = await serverOwner(dataDir)
  const place = { dataDir, runDir: dataDir, owner: undefined }
  const { settings, supply } = await planRecovery(request, place, true)
  if (supply) {
    request.progress.phase = 'lay out the log'
    await supply.run()
  }
  await writeAutoConf(dataDir, { ...(await missingMinimums(dataDir, request.base)), ...settings })
  await writeFile(path.join(dataDir, 'recovery.signal'), '', { mode: 0o600 })
  const end = supply?.end
  const reached = end ? toPosition(request.base, end) : request.base.consistent
  const chown = owner ? [`chown -R postgres:postgres '${dataDir}'`] : []
  const clean = supply
    ? [`When it has recovered, remove '${path.join(dataDir, readyFolder)}'.`]
    : []
  return {
    last: supply?.finder.lastCommit,
    reached,
    next: [
      ...chown,
      `Start PostgreSQL ${majorOf(request.base)} on it: pg_ctl -D '${dataDir}' start`,
      `It replays the log up to ${reached.at} and then begins a timeline of its own.`,
      ...clean,
    ],
  }
}

async function startRestored(
  request: RestoreRequest,
  layout: Layout,
  programs: Programs,
): Promise<RestoreResult> {
  const { dataDir } = layout
  const owner = await serverOwner(dataDir)
  const listen = await listenAddresses(dataDir)
  for (let tries = 1; ; tries += 1) {
    const port = tries === 1 ? await choosePort(dataDir) : await freePort()
    const settings = {
      port: String(port),
      listen_addresses: listen,
      hot_standby: 'off',
      // The folder that the configuration names may belong to another user; the data directory is the server's own.
      unix_socket_directories: socketFolder(dataDir),
    }
    const logFile = path.join(path.dirname(dataDir), `${path.basename(dataDir)}.log`)
    try {
      const { server, result } = await recover(request, layout, {
        programs,
        owner,
        settings,
        logFile,
      })
      server.release()
      return { ...result, url: `postgres://127.0.0.1:${port}/` }
    } catch (error) {
      // Somebody else took the port between our look and the server's start: nothing has happened yet.
      const taken = isFault(error, 'engine') && !(await isFree(port))
      if (!taken || tries === portTriesMax) throw error
    }
  }
}

function toPosition(base: BaseFacts, end: Cut) {
  const { systemId } = parseHistory(base.first.history)
  return { history: formatHistory({ systemId, timeline: end.timeline }), at: toAt(end.lsn) }
}

// A socket's path may have 107 bytes.
function socketFolder(dataDir: string): string {
  return Buffer.byteLength(dataDir) < 90 ? dataDir : tmpdir()
}

// The port that the configuration names, or another one where that is taken: by the source itself, say.
async function choosePort(dataDir: string): Promise<number> {
  const port = Number((await configured(dataDir, 'port')) ?? 5432)
  return (await isFree(port)) ? port : freePort()
}

async function listenAddresses(dataDir: string): Promise<string> {
  return (await configured(dataDir, 'listen_addresses')) ?? '127.0.0.1'
}
