import { readFile } from 'node:fs/promises'
import { Fault, fromSystem } from '#base/faults'

const sizeMaxBytes = 2 ** 24

/** The lines of a map file: see `parseMap`. */
export async function readMapFile(path: string): Promise<string> {
  const bytes = await readFile(path).catch((error: unknown) => {
    throw fromSystem(error, `read the map file ${path}`)
  })
  if (bytes.length <= sizeMaxBytes) return bytes.toString('utf8')
  throw new Fault('usage', `read the map file ${path}: it has ${bytes.length} bytes`)
}
