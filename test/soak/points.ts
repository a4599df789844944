// 100 random moments of a load with DDL for each engine: restored, and compared with what was committed by then.
import { seededRandom } from '#base/random'
import { findMariadb } from '../../src/demo/servers/mariadb.ts'
import { openPostgresEngine } from '../../src/demo/servers/postgres.ts'
import { pointsTrial } from '../support/points-trial.ts'
import { recordTrial } from '../support/record-trial.ts'
import { Scratch } from '../support/scratch.ts'

const points = Number(process.env['REDOUBT_SOAK_POINTS'] ?? 100)
const seed = Number(process.env['REDOUBT_SOAK_SEED'] ?? 1)
using scratch = new Scratch('points-soak')
for (const engine of [openPostgresEngine(scratch.path), findMariadb()]) {
  if (!engine) continue
  await pointsTrial({
    engine,
    points,
    loadMs: 20_000,
    random: seededRandom(seed),
    onPoint: (point) => {
      recordTrial('points', { seed, ...point })
      if (point.found === undefined) process.exitCode = 1
    },
  })
}
