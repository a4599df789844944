import { carry } from './mysql-carry.ts'

// A mover in a process of its own, to be killed: tells of each chunk that is on the target, and stands still behind so many,
// however late it is killed.
const [from = '', to = '', chunkBytes = '1', chunksMax = '1', run = '1'] = process.argv.slice(2)
let chunks = 0
await carry(from, to, {
  chunkBytes: Number(chunkBytes),
  run: Number(run),
  onChunk: async () => {
    chunks += 1
    process.stdout.write('chunk\n')
    if (chunks >= Number(chunksMax)) await new Promise((resolve) => setTimeout(resolve, 600_000))
  },
})
