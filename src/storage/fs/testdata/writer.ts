import { pattern } from '../../storage.suite.ts'
import { openFsStorage } from '../fs.ts'

/**
 * Stores objects as fast as it can, several at a time, telling its parent of each that was stored,
 * until killed.
 */
const storage = await openFsStorage(process.argv[2] ?? '')
let count = 0
await Promise.all(
  Array.from({ length: 4 }, async () => {
    for (;;) {
      const size = (++count * 7919) % 300_000
      const key = `data/${process.pid}.${count}-${size}`
      if (count % 2 === 0) await storage.put(key, pattern(size))
      else await storage.put(key, pattern(size), { ifAbsent: true })
      process.send?.(key)
    }
  }),
)
