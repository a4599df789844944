// What `forget` keeps and removes, compared with stock restic on 1,000 seeded random sets of snapshots.
import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { recordTrial } from '../support/record-trial.ts'

const sets = process.env['REDOUBT_SOAK_SETS'] ?? '1000'
const home = path.resolve(import.meta.dirname, '../..')
const startedMs = performance.now()
const { status } = spawnSync(
  process.execPath,
  ['--test', 'src/vault/retention/forget.restic.test.ts'],
  { cwd: home, stdio: 'inherit', env: { ...process.env, REDOUBT_SOAK_SETS: sets } },
)
const tookMs = Math.round(performance.now() - startedMs)
recordTrial('forget', { sets: Number(sets), equal: status === 0, tookMs })
if (status !== 0) process.exitCode = 1
