import { createHash } from 'node:crypto'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { Fault } from '#base/faults'
import type { Progress } from '#base/progress'
import type { ConflictPolicy } from '#change/apply'
import type { Phase } from '#change/schema'
import { engineOfUrl } from '#engines/all'
import { type Asked, migrate, type Migrated, type MigrateOptions } from '#links/migrate'
import { createSelection } from '#links/selection'
import { parseRate } from '#links/throttle'
import { parseUntil } from '#links/until'
import type { Surroundings } from './open.ts'
import { defaultSourceName } from './source-name.ts'

export type { Migrated, Preview } from '#links/migrate'
export { formatName } from '#links/selection'

export type MigrateSettings = {
  readonly from: string
  readonly to: string
  readonly asked: Omit<Asked, 'phases' | 'until' | 'conflicts'>
  /** As it was written: `caught-up`, `never`, a time. */
  readonly until?: string | undefined
  readonly conflicts?: ConflictPolicy | undefined
  /** As it was written: `schema,copy,changes`. */
  readonly phases?: string | undefined
  /** As it was written: `50MB/s`, `100000rows/s`. */
  readonly limit?: string | undefined
  readonly parallel: number
  /** How much of a table one transaction brings. */
  readonly chunkBytes?: number | undefined
  readonly stateDirectory?: string | undefined
  readonly resume: boolean
  readonly dryRun: boolean
  readonly progress: Progress
  readonly onPreview: MigrateOptions['onPreview']
  readonly onSaid: MigrateOptions['onSaid']
  readonly onMeter?: MigrateOptions['onMeter']
}

/** Brings what a source holds to a target; everything that can be refused without a server is refused before one is asked. */
export async function migrateData(
  settings: MigrateSettings,
  around: Surroundings,
): Promise<Migrated & { readonly stateDirectory: string }> {
  const { signal, log } = around
  const rate = settings.limit === undefined ? undefined : parseRate(settings.limit)
  const phases = settings.phases === undefined ? undefined : parsePhases(settings.phases)
  const { until, conflicts } = settings
  checkChanges(settings, phases)
  const { include = [], exclude = [], map = '' } = settings.asked
  createSelection({ include, exclude, map, accounts: false, convert: false })
  const ends = { from: endOf(settings.from), to: endOf(settings.to) }
  if (ends.from === ends.to && map === '') {
    throw new Fault('usage', `migrate from ${ends.from}: the target is the same`, {
      hint: 'Name another server or database with --to, or other names with --map.',
    })
  }
  const [fromKind, toKind] = [await engineOfUrl(settings.from), await engineOfUrl(settings.to)]
  const stateDirectory = settings.stateDirectory ?? defaultStateDirectory(ends, around.env)
  await using source = await fromKind.open(settings.from, { signal, log })
  await using target = await toKind.open(settings.to, { signal, log })
  const { resume, dryRun, parallel, chunkBytes, progress, onPreview, onSaid, onMeter } = settings
  const migrated = await migrate({
    ...ends,
    source,
    target,
    asked: { ...settings.asked, phases, until, conflicts },
    stateDirectory,
    resume,
    dryRun,
    parallel,
    chunkBytes,
    rate,
    progress,
    onPreview,
    onSaid,
    onMeter,
    log,
    signal,
  })
  return { ...migrated, stateDirectory }
}

/** Phases of later versions are known by name, so that they are not taken for a slip of the pen. */
const laterPhases = ['verify', 'cutover']
const phaseNames = ['schema', 'copy', 'changes'] as const

/** Reads `schema`, `copy`, `changes`, several of them with commas between. */
export function parsePhases(text: string): readonly Phase[] {
  const words = text.split(',').map((word) => word.trim())
  const later = words.find((word) => laterPhases.includes(word))
  if (later !== undefined) {
    throw new Fault('unsupported', `read --phases: '${later}' is not there yet`, {
      hint: 'This version carries schema, rows and changes: --phases schema,copy,changes.',
    })
  }
  const phases = phaseNames.filter((phase) => words.includes(phase))
  if (phases.length === 0 || phases.length !== words.length) {
    const said = `read --phases: '${text}' is none of schema, copy, changes, or several with commas`
    throw new Fault('usage', said)
  }
  if (phases.includes('changes') && !phases.includes('copy')) {
    throw new Fault('usage', `read --phases: '${text}' has changes without copy`, {
      hint: 'Changes begin where the rows of the copy end: --phases schema,copy,changes or copy,changes.',
    })
  }
  return phases
}

/** What is said of changes makes sense, and belongs to phases that have them. */
function checkChanges(
  { until, conflicts }: Pick<MigrateSettings, 'until' | 'conflicts'>,
  phases: readonly Phase[] | undefined,
): void {
  if (until !== undefined) parseUntil(until)
  if (phases === undefined || phases.includes('changes')) return
  const option = until !== undefined ? '--until' : conflicts && '--on-conflict'
  if (option === undefined) return
  throw new Fault('usage', `read ${option}: --phases ${phases.join(',')} has no changes`, {
    hint: 'Add changes to --phases, or leave --phases out.',
  })
}

/** Settings of a URL that say where its server is. */
const placeSettings = ['host', 'hostaddr', 'port', 'socket', 'dbname']

/** An end as its state and its messages name it: no login, no secret, of the settings only those that say where. */
export function endOf(url: string): string {
  const match = /^([a-z][a-z0-9+.-]*):\/\/(?:[^/?#]*@)?([^/?#]*)(\/[^?#]*)?(?:\?([^#]*))?/i.exec(
    url,
  )
  if (!match) {
    // Not shown: a password may be in it.
    throw new Fault('usage', 'read the URL: it is not one', {
      hint: 'Write it as postgres://USER@HOST/DATABASE or mysql://USER@HOST/.',
    })
  }
  const [, scheme = '', place = '', path = '', settings = ''] = match
  const kept = [...new URLSearchParams(settings)].filter(([name]) => placeSettings.includes(name))
  const where = kept.map(([name, value]) => `${name}=${value}`).sort()
  const tail = where.length > 0 ? `?${where.join('&')}` : ''
  return `${scheme.toLowerCase()}://${place.toLowerCase()}${path === '/' ? '' : path}${tail}`
}

function defaultStateDirectory(
  { from, to }: { readonly from: string; readonly to: string },
  env: Surroundings['env'],
): string {
  const data = env['REDOUBT_DATA'] ?? join(homedir(), '.redoubt')
  const sum = createHash('sha256').update(`${from}\n${to}`).digest('hex').slice(0, 8)
  return join(data, 'migrate', `${defaultSourceName(from)}-to-${defaultSourceName(to)}-${sum}`)
}
