import { readdirSync } from 'node:fs'
import { patternText } from './patterns.ts'

/** How the lists of names are held and paths are built: one character a byte, which also sorts as bytes do. */
export type ByteText = string

export const bytesOf = (text: ByteText): Buffer => Buffer.from(text, 'latin1')
export const textOf = (bytes: Buffer): ByteText => bytes.toString('latin1')

/** The names in a directory, in the order of their bytes. */
export function namesOf(directory: Buffer): ByteText[] {
  return readdirSync(directory, { encoding: 'latin1' }).sort()
}

export function child(directory: ByteText, name: ByteText): ByteText {
  return directory.endsWith('/') ? directory + name : `${directory}/${name}`
}

/** A path in a message, odd bytes and line ends made visible. */
export function show(path: Buffer): string {
  return JSON.stringify(patternText(path))
}
