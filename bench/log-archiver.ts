// Archives the log of a PostgreSQL into a vault as `protect` does: log, journal, shipper. Prints, when told to end by
// SIGTERM, what it cost from the moment the load began (SIGUSR2) and how long commits took to be durable in the vault.
// Usage: node bench/log-archiver.ts URL VAULT STATE
import { Shipper } from '#backup/ship'
import { silentLog } from '#base/log'
import { tasks } from '#base/tasks'
import { engineOfUrl } from '#engines/all'
import { openJournal } from '#journal'
import { openStorage } from '#storage/all'
import { initVault } from '#vault'

const [url = '', vaultUrl = '', stateDirectory = ''] = process.argv.slice(2)
const stop = new AbortController()
const { signal } = stop
const source = 'bench'
const storage = await openStorage(vaultUrl, { create: true })
const vault = await initVault(storage, { password: 'bench', signal })
await using journal = await openJournal(stateDirectory, { limitBytes: 2 ** 30, signal })
const waiting: { readonly at: string; readonly timeMs: number }[] = []
const delaysMs: number[] = []
const shipper = new Shipper({
  place: { url: vaultUrl, takesBases: false, opened: vault, open: async () => vault },
  source,
  journal,
  stateDirectory,
  eager: false,
  known: () => undefined,
  onReach: () => undefined,
  onGap: () => undefined,
  onDurable: () => {
    const durable = shipper.durable()
    const nowMs = Date.now()
    let done = 0
    while (durable && (waiting[done]?.at ?? '~') <= durable.at) done += 1
    for (const { timeMs } of waiting.splice(0, done)) delaysMs.push(nowMs - timeMs)
    // As `protect` does: what every vault has need not stay here.
    if (durable) void journal.trim(durable)
  },
})
let begunCpu = process.cpuUsage()
/** Commits of before, of which the log still tells, are not counted. */
let begunMs = Number.POSITIVE_INFINITY
process.on('SIGUSR2', () => {
  begunCpu = process.cpuUsage()
  begunMs = Date.now()
})
process.on('SIGTERM', () => stop.abort())

try {
  await tasks(signal, async (t) => {
    void t.run((inner) => shipper.run(inner))
    const kind = await engineOfUrl(url)
    await using engine = await kind.open(url, { signal: t.signal, log: silentLog })
    await using log = await engine.openLog({ log: silentLog, name: source, durability: 'async' })
    console.log('ready')
    for await (const item of log.read(undefined, { signal: t.signal })) {
      if (item.kind === 'beat') continue
      for (const { at, timeUs } of item.commits) {
        const timeMs = Number(timeUs) / 1000
        if (timeMs >= begunMs) waiting.push({ at, timeMs })
      }
      await journal.append(item, { signal: t.signal })
      const durable = journal.durable()
      if (durable) await log.ack(durable)
    }
  })
} catch (error) {
  if (!signal.aborted) throw error
}
const { user, system } = process.cpuUsage(begunCpu)
const sorted = delaysMs.toSorted((a, b) => a - b)
const quantile = (q: number) => sorted[Math.floor((sorted.length - 1) * q)]
console.log(
  JSON.stringify({
    cpuMs: (user + system) / 1000,
    peakBytes: process.resourceUsage().maxRSS * 1024,
    commits: sorted.length,
    delayMs: { p50: quantile(0.5), p99: quantile(0.99), max: sorted.at(-1) },
  }),
)
