import { isFault } from '#base/faults'
import type { Session } from './protocol/session.ts'

export const beatDatabase = 'redoubt'

/**
 * Notes the present time in `redoubt.heartbeat`, where the operator has made that database for it: a restored server
 * then tells how far it came. False where there is none, or where this user may not write.
 */
export async function writeBeat(session: Session, signal: AbortSignal): Promise<boolean> {
  try {
    const row = await session.one('SELECT @@global.read_only', { signal })
    if (row?.[0] !== '0') return false
    const found = await session.texts(`SHOW DATABASES LIKE '${beatDatabase}'`, { signal })
    if (found.length === 0) return false
    await session.query(
      `CREATE TABLE IF NOT EXISTS ${beatDatabase}.heartbeat
       (id TINYINT NOT NULL PRIMARY KEY, at DATETIME(6) NOT NULL) ENGINE = InnoDB`,
      { signal },
    )
    await session.query(`REPLACE INTO ${beatDatabase}.heartbeat VALUES (1, UTC_TIMESTAMP(6))`, {
      signal,
    })
    return true
  } catch (error) {
    if (!isFault(error, 'denied', 'engine')) throw error
    return false
  }
}
