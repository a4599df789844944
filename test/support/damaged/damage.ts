import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'

/** What may happen to a stored object. */
export const damages = ['bit', 'first byte', 'last byte', 'half', 'empty', 'gone'] as const

export type Damage = (typeof damages)[number]

/** Damages one object of a vault in a folder until the scope ends; undefined where nothing would change. */
export function damageObject(
  vault: string,
  key: string,
  damage: Damage,
  random: () => number,
): Disposable | undefined {
  const file = path.join(vault, key)
  const before = readFileSync(file)
  const after = damaged(before, damage, random)
  if (after?.equals(before)) return undefined
  if (after) writeFileSync(file, after)
  else rmSync(file)
  return { [Symbol.dispose]: () => writeFileSync(file, before) }
}

function damaged(before: Buffer, damage: Damage, random: () => number): Buffer | undefined {
  const bytes = Buffer.from(before)
  const flip = (at: number, mask: number) => {
    const byte = bytes[at]
    if (byte !== undefined) bytes[at] = byte ^ mask
    return bytes
  }
  switch (damage) {
    case 'bit':
      return flip(Math.floor(random() * bytes.length), 1 << Math.floor(random() * 8))
    case 'first byte':
      return flip(0, 0xff)
    case 'last byte':
      return flip(bytes.length - 1, 0xff)
    case 'half':
      return bytes.subarray(0, bytes.length >> 1)
    case 'empty':
      return bytes.subarray(0, 0)
    case 'gone':
      return undefined
    default:
      return damage satisfies never
  }
}
