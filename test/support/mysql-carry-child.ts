import { carry } from './mysql-carry.ts'

// A mover in a process of its own, to be killed: tells of each chunk that is on the target.
const [from = '', to = '', chunkBytes = '1', run = '1'] = process.argv.slice(2)
await carry(from, to, {
  chunkBytes: Number(chunkBytes),
  run: Number(run),
  onChunk: () => process.stdout.write('chunk\n'),
})
