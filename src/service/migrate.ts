import { createHash } from 'node:crypto'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { Fault } from '#base/faults'
import type { Progress } from '#base/progress'
import type { Phase } from '#change/schema'
import { engineOfUrl } from '#engines/all'
import { type Asked, migrate, type Migrated, type MigrateOptions } from '#links/migrate'
import { createSelection } from '#links/selection'
import { parseRate } from '#links/throttle'
import type { Surroundings } from './open.ts'
import { defaultSourceName } from './source-name.ts'

export type { Migrated, Preview } from '#links/migrate'
export { formatName } from '#links/selection'

export type MigrateSettings = {
  readonly from: string
  readonly to: string
  readonly asked: Omit<Asked, 'phases'>
  /** As it was written: `schema,copy`. */
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
}

/** Brings what a source holds to a target; everything that can be refused without a server is refused before one is asked. */
export async function migrateData(
  settings: MigrateSettings,
  around: Surroundings,
): Promise<Migrated & { readonly stateDirectory: string }> {
  const { signal, log } = around
  const rate = settings.limit === undefined ? undefined : parseRate(settings.limit)
  const phases = settings.phases === undefined ? undefined : parsePhases(settings.phases)
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
  const { resume, dryRun, parallel, chunkBytes, progress, onPreview, onSaid } = settings
  const migrated = await migrate({
    ...ends,
    source,
    target,
    asked: { ...settings.asked, phases },
    stateDirectory,
    resume,
    dryRun,
    parallel,
    chunkBytes,
    rate,
    progress,
    onPreview,
    onSaid,
    log,
    signal,
  })
  return { ...migrated, stateDirectory }
}

/** Phases of later versions are known by name, so that they are not taken for a slip of the pen. */
const laterPhases = ['changes', 'verify', 'cutover']

/** Reads `schema`, `copy` or `schema,copy`. */
export function parsePhases(text: string): readonly Phase[] {
  const words = text.split(',').map((word) => word.trim())
  const later = words.find((word) => laterPhases.includes(word))
  if (later !== undefined) {
    throw new Fault('unsupported', `read --phases: '${later}' is not there yet`, {
      hint: 'This version carries schema and rows: --phases schema,copy.',
    })
  }
  const phases = (['schema', 'copy'] as const).filter((phase) => words.includes(phase))
  const said = words.join(',')
  if (phases.length > 0 && (said === phases.join(',') || said === 'copy,schema')) return phases
  throw new Fault('usage', `read --phases: '${text}' is not schema, copy or schema,copy`)
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
