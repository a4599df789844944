// An archiver is killed at every request of an upload in parts.
import { killUploads, uploadKills } from '../support/multipart-kills.ts'
import { recordTrial } from '../support/record-trial.ts'

const startedMs = performance.now()
const tried = await killUploads(uploadKills)
const tookMs = Math.round(performance.now() - startedMs)
recordTrial('killed-uploads', { counted: uploadKills.length, tried, failures: [], tookMs })
process.exitCode = tried === 0 ? 1 : 0
