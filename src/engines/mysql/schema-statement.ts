import { fromText, toText } from './layout.ts'

/** Begins a statement whose text is in no UTF-8: its maker's character set is part of what it means. */
const rawMark = 'base64:'

/** A statement's bytes as text, whatever character set they are in. */
export function writeStatement(bytes: Buffer): string {
  const text = toText(bytes)
  return 'text' in text ? text.text : `${rawMark}${text.base64}`
}

/** The bytes to be sent. */
export function readStatement(statement: string): Buffer {
  if (!statement.startsWith(rawMark)) return Buffer.from(statement)
  return fromText({ base64: statement.slice(rawMark.length) })
}
