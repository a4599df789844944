import { Fault } from '#base/faults'
import type { Progress } from '#base/progress'
import { engineOfUrl } from '#engines/all'
import { createSelection, formatName, parseMap, selectionFindings } from '#links/selection'
import { parseRate } from '#links/throttle'
import { type Mode, type Verified, verify } from '#verify/verify'
import { endOf } from './migrate.ts'
import type { Surroundings } from './open.ts'

export type { Verified } from '#verify/verify'

export type VerifySettings = {
  readonly from: string
  readonly to: string
  readonly include: readonly string[]
  readonly exclude: readonly string[]
  /** Lines of a map file. */
  readonly map: string
  /** As it was written: `schema`, `full`, `sample=1%`. */
  readonly mode?: string | undefined
  readonly seed?: string | undefined
  /** As it was written: `100000rows/s`. */
  readonly limit?: string | undefined
  readonly parallel: number
  readonly recheckMs: number
  readonly repair?: 'plan' | 'apply' | undefined
  readonly namedMax: number
  readonly progress: Progress
}

/** Compares two ends; everything that can be refused without a server is refused before one is asked. */
export async function verifyData(
  settings: VerifySettings,
  around: Surroundings,
): Promise<Verified> {
  const { signal, log } = around
  const mode = parseMode(settings.mode ?? 'full', settings.seed)
  const { repair, include, exclude, map } = settings
  if (repair !== undefined && mode.kind === 'schema') {
    throw new Fault('usage', 'read --repair: the mode schema compares no rows', {
      hint: 'Repair with --mode full or --mode sample=P%.',
    })
  }
  const rowsPerSecond = settings.limit === undefined ? undefined : rowsOf(settings.limit)
  const choices = { include, exclude, accounts: false, convert: false }
  const selection = createSelection({ ...choices, map })
  const back = createSelection({
    include: [],
    exclude: [],
    accounts: false,
    convert: false,
    map: turned(map),
  })
  const ends = { from: endOf(settings.from), to: endOf(settings.to) }
  if (ends.from === ends.to && map === '') {
    throw new Fault('usage', `compare ${ends.from}: the target is the same`, {
      hint: 'Name another server or database with --to, or other names with --map.',
    })
  }
  const [fromKind, toKind] = [await engineOfUrl(settings.from), await engineOfUrl(settings.to)]
  await using source = await fromKind.open(settings.from, { signal, log })
  await using target = await toKind.open(settings.to, { signal, log })
  const { parallel, recheckMs, namedMax, progress } = settings
  return await verify({
    ...ends,
    source,
    target,
    mode,
    selection,
    unmap: (name) => back.map(name),
    judge: (schema) => selectionFindings({ ...choices, map }, schema),
    parallel,
    rowsPerSecond,
    recheckMs,
    repair,
    namedMax,
    progress,
    log,
    signal,
  })
}

/** Reads `schema`, `full` or `sample=P%`. */
export function parseMode(text: string, seed: string | undefined): Mode {
  const percent = /^sample=(\d{1,3}(?:\.\d{1,6})?)%$/.exec(text)
  if (percent) {
    const share = Number(percent[1]) / 100
    if (share > 0 && share <= 1) return { kind: 'sample', share, seed }
    throw new Fault('usage', `read --mode: '${text}' is not above 0% and at most 100%`)
  }
  if (text !== 'schema' && text !== 'full') {
    throw new Fault('usage', `read --mode: '${text}' is not schema, full or sample=P%`, {
      hint: 'Write a sample as sample=1% or sample=0.05%.',
    })
  }
  if (seed !== undefined) {
    throw new Fault('usage', `read --seed: the mode ${text} chooses nothing by chance`, {
      hint: 'Use it with --mode sample=P%.',
    })
  }
  return { kind: text }
}

function rowsOf(text: string): number {
  const { unit, perSecond } = parseRate(text)
  if (unit === 'rows') return perSecond
  throw new Fault('usage', `read --limit: '${text}' is not a number of rows: none are moved`, {
    hint: 'Write it as 100000rows/s.',
  })
}

/** The map from the target's names back to the source's. */
function turned(map: string): string {
  return parseMap(map)
    .map(({ from, to }) => `${formatName(to)} = ${formatName(from)}`)
    .join('\n')
}
