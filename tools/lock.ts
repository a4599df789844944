import { readFileSync, writeFileSync } from 'node:fs'
import { completeLock, type Lock } from './lockfile.ts'

// `npm run lock`: after npm has written the lockfile, adds what a registry without other platforms' packages left out.
const file = 'package-lock.json'
const lock = JSON.parse(readFileSync(file, 'utf8')) as Lock
writeFileSync(file, `${JSON.stringify(completeLock(lock), undefined, 2)}\n`)
