import { openStorage } from '../../all.ts'
import { chunks, pattern } from '../../storage.suite.ts'
import { isFault } from '#base/faults'

/** Uses the store of a URL a little and writes how it went: `ok`, or the fault's code and message. */
const large = pattern(11_000_003)
try {
  await using storage = await openStorage(process.argv[2] ?? '', { retry: false })
  await storage.put('a', pattern(300_000))
  await storage.putStream('large', chunks(large, 65_536))
  const same = large.equals(await storage.get('large'))
  const keys = (await Array.fromAsync(storage.list(''))).map((info) => info.key)
  process.stdout.write(same && keys.join() === 'a,large' ? 'ok' : `wrong: ${keys.join()}`)
} catch (error) {
  if (!isFault(error)) throw error
  process.stdout.write(`${error.code} ${error.recovery} ${error.message}`)
}
