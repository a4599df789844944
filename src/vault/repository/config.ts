import { randomHex } from '#base/ids'
import { Fault } from '#base/faults'
import { takeId } from './blob-id.ts'
import type { EnvelopeCipher } from './crypto.ts'
import { parseJson, takeInteger, takeObject, takeText } from './json.ts'
import { parsePolynomial, randomPolynomial } from './polynomial.ts'

/** What holds for a repository as a whole: written once, by `init`. */
export type RepositoryConfig = {
  readonly version: 1 | 2
  readonly id: string
  readonly polynomial: bigint
}

export const configKey = 'config'

export function createConfig(polynomial = randomPolynomial()): RepositoryConfig {
  return { version: 2, id: randomHex(32), polynomial }
}

export function encodeConfig(config: RepositoryConfig, cipher: EnvelopeCipher): Buffer {
  const text = JSON.stringify({
    version: config.version,
    id: config.id,
    chunker_polynomial: config.polynomial.toString(16),
  })
  return cipher.seal(Buffer.from(text))
}

export function decodeConfig(stored: Buffer, cipher: EnvelopeCipher): RepositoryConfig {
  const json = takeObject(parseJson(cipher.open(stored, 'config').toString(), 'config'), 'config')
  const version = takeInteger(json['version'], 2 ** 31, 'config version')
  if (version !== 1 && version !== 2) {
    throw new Fault('unsupported', `open repository: format version ${version}`, {
      hint: 'This program reads the versions 1 and 2 of the restic repository format.',
    })
  }
  return {
    version,
    id: takeId(json['id'], 'config id'),
    polynomial: parsePolynomial(takeText(json['chunker_polynomial'], 'config polynomial')),
  }
}
