import { createHash } from 'node:crypto'
import { Fault } from '#base/faults'
import { systemTime } from '#base/time'
import { serverErrorNumber } from '../protocol/server-error.ts'
import type { Session } from '../protocol/session.ts'
import { quoteText } from '../sql.ts'

type Options = { readonly signal: AbortSignal }

/** As many as an applier may have. */
export const lanesMax = 64
/** The session that reads marks and runs definitions. */
export const controlLane = -1

/** How long a session that was ended may take to roll back. */
const endsMaxMs = 60_000
const askEveryMs = 50
const lockSeconds = 10
/** The session is gone already; it belongs to another user. */
const killErrors: readonly unknown[] = [1094, 1095]

/**
 * Ends the sessions of a link that another process left. A server carries out what it was sent also when the sender has died:
 * a commit could come after the marks were read, and bring what is then written once more. Each session holds a lock of the
 * server (`GET_LOCK`) as long as it lives, by which it is found.
 */
export async function endOthers(control: Session, link: string, options: Options): Promise<void> {
  const asked = Array.from({ length: lanesMax + 1 }, (_, index) => lockSql(link, index - 1))
  const sql = `SELECT ${asked.map((name) => `IS_USED_LOCK(${name})`).join(', ')}`
  const killed = new Set<string>()
  for (const sinceMs = systemTime.monotonicMs(); ; ) {
    const row = await control.one(sql, options)
    const others = (row ?? []).flatMap((id) => (id === null || id === undefined ? [] : [id]))
    if (others.length === 0) return
    for (const id of others) {
      if (killed.has(id)) continue
      killed.add(id)
      await kill(control, id, options)
    }
    if (systemTime.monotonicMs() - sinceMs > endsMaxMs) {
      throw inUse(link, `sessions ${others.join(', ')} of it do not end`)
    }
    await systemTime.sleep(askEveryMs, options.signal)
  }
}

/** From now on the session is known to be one of the link's. */
export async function own(
  session: Session,
  link: string,
  lane: number,
  options: Options,
): Promise<void> {
  const row = await session.one(`SELECT GET_LOCK(${lockSql(link, lane)}, ${lockSeconds})`, options)
  if (row?.[0] !== '1') throw inUse(link, `another process holds lane ${lane}`)
}

async function kill(control: Session, id: string, options: Options): Promise<void> {
  try {
    await control.query(`KILL ${Number(id)}`, options)
  } catch (error) {
    if (!killErrors.includes(serverErrorNumber(error))) throw error
  }
}

/** Names of locks have 64 characters. */
function lockSql(link: string, lane: number): string {
  const sum = createHash('sha256').update(link).digest('hex').slice(0, 32)
  return quoteText(`redoubt.${sum}.${lane}`)
}

function inUse(link: string, why: string): Fault {
  return new Fault('locked', `apply changes of link ${link}: ${why}`, {
    hint: 'Another process applies the same link: stop it, or end its sessions on the target.',
  })
}
