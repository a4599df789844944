import { fdatasyncSync, openSync, writeSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { openShopDatabase } from './database.ts'
import { openingStatements, orderStatements } from './statements.ts'

// A process of its own: `SHOP_URL=... workload.ts ORACLE RATE`. It places orders until the database is gone or it is told to
// stop, and writes down each commit that it saw return, synced before the next begins: what it has written, the
// database had promised. When the connection breaks, the commit under way may or may not have happened.

const [oracle = '', rate = '200'] = process.argv.slice(2)
const url = process.env['SHOP_URL'] ?? ''
const pauseMs = 1000 / Number(rate)
const triesMax = 10
let stopping = false
process.on('SIGTERM', () => {
  stopping = true
})
// Never alone: when the story's process is gone, its pipe closes.
process.stdin.on('end', () => process.exit(0)).resume()

const file = openSync(oracle, 'a')
const database = await openShopDatabase(url)
await database.run(openingStatements())
tell({ open: true })
await sell()
await database[Symbol.asyncDispose]()
process.exit(0)

async function sell(): Promise<void> {
  const beganMs = performance.now()
  for (let n = 1; !stopping; n++) {
    const startedMs = Date.now()
    const lost = await place(n)
    if (lost !== undefined) {
      tell({ committed: n - 1, lost })
      process.exit(0)
    }
    writeSync(file, `${n} ${startedMs} ${Date.now()}\n`)
    fdatasyncSync(file)
    if (n % 10 === 0) tell({ committed: n })
    const aheadMs = n * pauseMs - (performance.now() - beganMs)
    if (aheadMs > 0) await delay(aheadMs)
  }
}

/** Places order `n`; returns why not when the database is gone. */
async function place(n: number): Promise<string | undefined> {
  for (let tries = 1; ; tries++) {
    try {
      await database.transact(orderStatements(n))
      return undefined
    } catch (error) {
      // A deadlock, with the mistake's locks for instance, leaves the connection alive: roll back and try again.
      const alive = await rollBack()
      if (!alive || tries === triesMax) return String(error)
    }
  }
}

async function rollBack(): Promise<boolean> {
  try {
    await database.run([{ sql: 'rollback', values: [] }])
    return true
  } catch {
    return false // the connection is gone: the caller has the first error
  }
}

function tell(news: object): void {
  process.stdout.write(`${JSON.stringify(news)}\n`)
}
