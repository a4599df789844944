// Server and archiver die together, 200 times at random moments, under commits one behind the other: `strict` may lose none.
import { seededRandom } from '#base/random'
import { findMariadb } from '../../src/demo/servers/mariadb.ts'
import { openPostgresEngine } from '../../src/demo/servers/postgres.ts'
import type { DemoEngine } from '../../src/demo/servers/server.ts'
import { recordTrial } from '../support/record-trial.ts'
import { Scratch } from '../support/scratch.ts'
import { strictTrial } from '../support/strict-trial.ts'

const trials = Number(process.env['REDOUBT_SOAK_STRICT'] ?? 200)
const seed = Number(process.env['REDOUBT_SOAK_SEED'] ?? 1)
const random = seededRandom(seed)
using scratch = new Scratch('strict-soak')
const engines: DemoEngine[] = [openPostgresEngine(scratch.path)]
const mariadb = findMariadb()
if (mariadb) engines.push(mariadb)

let counted = 0
for (let index = 0; counted < trials; index++) {
  const engine = engines[index % engines.length]
  if (!engine) throw new Error('no engine')
  const trial = await strictTrial(engine, 200 + Math.floor(random() * 4000))
  // A trial without a commit before the kill shows nothing.
  if (trial.seen === 0) continue
  counted += 1
  recordTrial('strict', { seed, ...trial })
  if (trial.lost > 0 || trial.differences > 0) process.exitCode = 1
}
