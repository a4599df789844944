import { Fault } from '#base/faults'
import { eachLimit } from '#base/tasks'
import type { Storage } from '#storage'
import type { LogFinding } from './archive.ts'
import { cover, listLog, readHeads, type StoredObject } from './inventory.ts'
import { readIndex } from './log-index.ts'
import { openObject, type Reading, unpack } from './object.ts'
import type { SignedRecord } from './record.ts'
import { follows } from './tail.ts'

export type CheckOptions = {
  readonly storage: Storage
  readonly source: string
  readonly reading: Reading
  /** Decrypt and unpack every object, not the records alone. */
  readonly readData: boolean
  readonly signal: AbortSignal
}

const objectsAtOnce = 4

/**
 * Checks a source's log: each object's name, record and signature, the chain from the first to the last, and with
 * `readData` every byte. Returns all findings, each naming its object; throws only when the store does not answer.
 */
export async function checkLog(options: CheckOptions): Promise<LogFinding[]> {
  const { storage, source, reading, signal } = options
  const findings: LogFinding[] = []
  const { objects, strangers } = await listLog(storage, source, signal)
  const index = await readIndex(storage, source, reading, signal)
  for (const key of strangers) {
    findings.push({
      severity: 'notes',
      code: 'stranger',
      object: key,
      said: 'no archiver wrote it',
    })
  }
  const doubtful = [...index.rivals, ...index.leftovers]
  for (const { key } of doubtful) {
    const said = 'left behind by an archiver that died; the next archiver removes it'
    findings.push({ severity: 'notes', code: 'leftover', object: key, said })
  }
  const out = new Set(doubtful.map(({ key }) => key))
  const wanted = objects.filter(({ key }) => !out.has(key))
  const heads = await readHeads(storage, wanted, reading, signal)
  for (const [i, object] of wanted.entries()) {
    const head = heads[i]
    if (head && 'error' in head) findings.push(damaged(object, head.error))
  }
  const { chosen } = cover(wanted)
  findings.push(...checkChain(chosen, new Map(wanted.map((o, i) => [o.key, heads[i]]))))
  if (options.readData) findings.push(...(await checkData(wanted, options)))
  return unique(findings)
}

type Head = SignedRecord | { readonly error: unknown } | undefined

function checkChain(
  chosen: readonly StoredObject[],
  heads: ReadonlyMap<string, Head>,
): LogFinding[] {
  const findings: LogFinding[] = []
  for (const [i, object] of chosen.entries()) {
    const before = chosen[i - 1]
    const own = heads.get(object.key)
    const previous = before && heads.get(before.key)
    if (!before || !own || !previous || 'error' in own || 'error' in previous) continue
    const { record } = own
    const apart = record.sequenceFirst - previous.record.sequenceLast
    if (!follows(previous, own)) {
      const said =
        apart === 1
          ? `it does not link to ${before.key}`
          : `${apart - 1} objects are missing between ${before.key} and it`
      findings.push({ severity: 'damaged', code: 'gap', object: object.key, said })
    } else if (record.hole) {
      const said = `the source lost its log between ${record.after?.at} and ${record.first}`
      findings.push({ severity: 'warns', code: 'hole', object: object.key, said })
    } else if (!continuous(previous, own)) {
      const said = `it begins at ${record.first}, not at ${previous.record.next}`
      findings.push({ severity: 'damaged', code: 'gap', object: object.key, said })
    }
  }
  return findings
}

function continuous(previous: SignedRecord, own: SignedRecord): boolean {
  const [a, b] = [previous.record, own.record]
  if (a.history !== b.history) return b.after?.history === a.history && b.after.at === a.next
  if (a.next !== b.first) return false
  return a.segment === b.segment ? a.offset + a.sizeBytes === b.offset : b.offset === 0
}

async function checkData(
  objects: readonly StoredObject[],
  options: CheckOptions,
): Promise<LogFinding[]> {
  const { storage, reading, signal } = options
  const findings: LogFinding[] = []
  await eachLimit(objects, objectsAtOnce, signal, async (object, inner) => {
    try {
      const opened = await openObject(storage, object.key, reading, inner)
      const pieces = unpack(opened, object.key)
      while (!(await pieces.next()).done) inner.throwIfAborted()
    } catch (error) {
      inner.throwIfAborted()
      findings.push(damaged(object, error))
    }
  })
  return findings.toSorted((a, b) => ((a.object ?? '') < (b.object ?? '') ? -1 : 1))
}

/** What is wrong with one object is a finding; a store that does not answer is not. */
function damaged(object: StoredObject, error: unknown): LogFinding {
  if (!(error instanceof Fault) || error.recovery === 'retry' || error.code === 'denied')
    throw error
  return { severity: 'damaged', code: error.code, object: object.key, said: error.message }
}

/** A damaged head is found again with the data: it is told once. */
function unique(findings: readonly LogFinding[]): LogFinding[] {
  const seen = new Set<string>()
  return findings.filter(({ code, object }) => {
    const id = `${code} ${object}`
    const isNew = !seen.has(id)
    seen.add(id)
    return isNew
  })
}
