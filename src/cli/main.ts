import { exit } from 'node:process'

// `wal-fetch` is started by PostgreSQL for every segment: it must not pay for what the other verbs load.
if (process.argv[2] === 'wal-fetch') {
  const { walFetch } = await import('./wal-fetch.ts')
  exit(await walFetch(process.argv.slice(3)))
} else {
  const { runCommandLine } = await import('./command-line.ts')
  process.exitCode = await runCommandLine(process.argv.slice(2))
}
