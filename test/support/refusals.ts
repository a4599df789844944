import assert from 'node:assert/strict'
import { refused, runCommand, twoAtATime } from './command.ts'
import type { Scratch } from './scratch.ts'

/** Nothing listens there: whoever asks a server before he has read his options answers 4. */
const ends = '--from mysql://u:hidden@127.0.0.1:1 --to mysql://u:hidden@127.0.0.1:2'

/** SCRATCH stands for a folder, ENDS for two ends; the words are split at blanks, '' is an empty one. */
export type Refusal = readonly [args: string, code: number, said: RegExp]

/** A verb refuses each of these with its code and its words, and tells no secret. */
export async function assertRefusals(
  verb: string,
  refusals: readonly Refusal[],
  scratch: Scratch,
): Promise<void> {
  const place = (text: string) => text.replaceAll('ENDS', ends).replaceAll('SCRATCH', scratch.path)
  const ran = await twoAtATime(refusals, ([args]) => {
    const words = place(args)
      .split(' ')
      .filter((word) => word !== '')
    const env = { REDOUBT_DATA: scratch.join('data') }
    return runCommand([verb, ...words.map((word) => (word === "''" ? '' : word))], env)
  })
  for (const [index, [args, code, said]] of refusals.entries()) {
    const one = ran[index]
    assert.ok(one)
    refused(one, args, code, said)
    assert.doesNotMatch(one.out + one.said, /hidden/, args)
  }
}
