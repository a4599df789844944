import { Fault } from '#base/faults'

/** Bech32 of BIP 173 (https://github.com/bitcoin/bips/blob/master/bip-0173.mediawiki), without its limit of 90 characters. */
const alphabet = 'qpzry9x8gf2tvdw0s3jn54khce6mua7l'
const generators = [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3]
const checksumSize = 6

/** Writes bytes under a lower-case prefix. */
export function encodeBech32(prefix: string, bytes: Uint8Array): string {
  const values = regroup(bytes, 8, 5, true)
  const sum = polymod([...expand(prefix), ...values, 0, 0, 0, 0, 0, 0]) ^ 1
  const check = Array.from({ length: checksumSize }, (_, i) => (sum >>> (5 * (5 - i))) & 31)
  return `${prefix}1${[...values, ...check].map((value) => alphabet[value]).join('')}`
}

/** Reads what `encodeBech32` wrote, all in one case. `what` names it in messages; its text is never shown: it may be a secret. */
export function decodeBech32(text: string, prefix: string, what: string): Buffer {
  const refuse = (why: string) => new Fault('usage', `read ${what}: ${why}`)
  const lower = text.toLowerCase()
  if (text !== lower && text !== text.toUpperCase()) throw refuse('upper and lower case are mixed')
  if (!lower.startsWith(`${prefix}1`)) throw refuse(`it does not start with ${prefix}1`)
  const values = Array.from(lower.slice(prefix.length + 1), (letter) => alphabet.indexOf(letter))
  if (values.includes(-1)) throw refuse('it holds a letter that bech32 does not use')
  if (values.length < checksumSize || polymod([...expand(prefix), ...values]) !== 1) {
    throw refuse('its checksum is wrong')
  }
  return Buffer.from(regroup(values.slice(0, -checksumSize), 5, 8, false, refuse))
}

function regroup(
  values: Iterable<number>,
  from: number,
  to: number,
  pad: boolean,
  refuse: (why: string) => Error = (why) => new Error(why),
): number[] {
  const out: number[] = []
  let held = 0
  let bits = 0
  for (const value of values) {
    held = (held << from) | value
    bits += from
    while (bits >= to) {
      bits -= to
      out.push((held >>> bits) & ((1 << to) - 1))
    }
    held &= (1 << bits) - 1
  }
  if (pad && bits > 0) out.push((held << (to - bits)) & ((1 << to) - 1))
  if (!pad && (bits >= from || held !== 0)) throw refuse('its padding is not zero')
  return out
}

function polymod(values: readonly number[]): number {
  let sum = 1
  for (const value of values) {
    const top = sum >>> 25
    sum = ((sum & 0x1ffffff) << 5) ^ value
    for (const [i, generator] of generators.entries()) if ((top >>> i) & 1) sum ^= generator
  }
  return sum
}

function expand(prefix: string): number[] {
  const codes = Array.from(Buffer.from(prefix, 'latin1'))
  return [...codes.map((code) => code >>> 5), 0, ...codes.map((code) => code & 31)]
}
