// A process of its own: `load.ts URL ORACLE PAUSE_MS` runs one transaction behind the other and notes, synced, each that it
// saw return. It ends when the database is gone, or when its standard input closes.
import { fdatasyncSync, openSync, writeSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { openLoadDatabase } from './database.ts'

const [url = '', oracle = '', pauseMs = '0'] = process.argv.slice(2)
const file = openSync(oracle, 'a')
let stopped = false
process.stdin.on('close', () => {
  stopped = true
})
process.stdin.resume()
const database = await openLoadDatabase(url)
await database.prepare()
process.stdout.write('open\n')
try {
  for (let n = 1; !stopped; n++) {
    const startedMs = Date.now()
    await database.run(n)
    writeSync(file, `${n} ${startedMs} ${Date.now()}\n`)
    fdatasyncSync(file)
    if (Number(pauseMs) > 0) await pause(Number(pauseMs))
  }
} catch (error) {
  process.stderr.write(`${String(error)}\n`)
}
process.exit(0)
