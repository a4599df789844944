import { join } from 'node:path'
import { assert, Fault } from '#base/faults'
import type { Log } from '#base/log'
import type { Time } from '#base/time'
import type { Position } from '#change'
import type { ApplyTarget } from '#change/apply'
import type { ChangeSource } from '#change/batch'
import type { Finding } from '#change/finding'
import type { Selection } from '#change/schema'
import { carryChanges } from './changes.ts'
import type { FlowMeter } from './flow.ts'
import { type CopiedAt, Since } from './since.ts'
import type { Changing, LinkStore } from './state.ts'
import type { Throttle } from './throttle.ts'
import { parseUntil } from './until.ts'

export type Following = {
  readonly source: ChangeSource
  readonly target: ApplyTarget
  readonly store: LinkStore
  readonly stateDirectory: string
  readonly selection: Selection
  readonly parallel: number
  readonly throttle: Throttle | undefined
  readonly meter: FlowMeter
  readonly batchRowsMax?: number | undefined
  readonly time: Time
  readonly log: Log
  readonly signal: AbortSignal
}

/** The changes of a link whose rows were copied. */
export async function followCopy(link: string, following: Following): Promise<void> {
  const { store, stateDirectory, ...work } = following
  const changing = store.changing()
  assert(changing !== undefined, 'a link with changes knows what is asked of them')
  await carryChanges({
    ...work,
    link,
    since: readSince(store),
    until: parseUntil(changing.until),
    conflicts: changing.conflicts,
    directory: join(stateDirectory, 'changes'),
    onConflict: () => store.addFinding(conflictFinding(changing)),
    onHiddenCascade: () => {
      if (mayCascade(store)) store.addFinding(cascadeFinding)
    },
  })
}

/** Where the rows of each table stand in the source's log. */
function readSince(store: LinkStore): Since {
  const runs = store.runs()
  const positionOf = (run: number): Position => {
    const position = runs[run]?.position
    if (position) return position
    throw new Fault('log-lost', 'read changes: the source had no log when its rows were copied', {
      hint: 'Turn its log on, and begin the copy anew.',
    })
  }
  const byTable = store.runsOfTables()
  const everything = runs.map(({ run }) => run)
  const tables = store.tables().map(({ shape }, index): CopiedAt => {
    // No mark tells when a table was seen to be empty.
    const positions = (byTable.get(index) ?? everything).map(positionOf)
    const sorted = positions.toSorted((a, b) => (a.at < b.at ? -1 : 1))
    const [first, last] = [sorted.at(0), sorted.at(-1)]
    assert(first && last, 'a copy had a reader')
    return { name: shape.name, first, last }
  })
  return new Since(tables, positionOf(0))
}

/** Of a link that makes no objects nobody knows. */
function mayCascade(store: LinkStore): boolean {
  const makes = store.plan()?.phases.includes('schema')
  return !makes || store.objects().some(({ kind }) => kind === 'foreign-key')
}

const cascadeFinding: Finding = {
  severity: 'warns',
  code: 'mixed-cascades',
  said: 'the copy was interrupted, and what foreign keys of the source did to other tables meanwhile stands in no log: rows that they deleted or changed may be as before',
  mend: 'compare both sides with redoubt verify, which repairs such rows',
}

function conflictFinding({ conflicts }: Changing): Finding {
  const became = conflicts === 'overwrite' ? 'made the source’s' : 'left as they were'
  return {
    severity: 'warns',
    code: 'conflicts-settled',
    said: `rows of the target were not as the source had them, and were ${became} (--on-conflict ${conflicts})`,
    mend: 'each is recorded on the target with its images, in the schema (MySQL: database) redoubt',
  }
}
