import { Fault } from '#base/faults'

/** `part`: what was cut last. `run`: parts of an open segment joined. `full`: a whole segment. */
export type ObjectKind = 'part' | 'run' | 'full'

/** What the key of a log object tells. */
export type ObjectName = {
  readonly kind: ObjectKind
  readonly source: string
  readonly history: string
  /** Position of the first byte. */
  readonly first: string
  readonly segment: string
  readonly offset: number
  /** Numbers of the first and the last part in it. */
  readonly sequenceFirst: number
  readonly sequenceLast: number
  /** Epoch of its archiver, where the store has no conditional put to keep two of them from one name. */
  readonly writerEpoch?: number | undefined
}

const digits = 12
const nameBytesMax = 255
const namePattern =
  /^([^-/]+)-([^-/]+)-(\d{12})-(\d{12})-(\d{12})(?:-(\d{8}))?\.(part|run|full)\.zst\.age$/
/** Texts that are written as they are: most of them. */
const plainPattern = /^[A-Za-z0-9_][A-Za-z0-9_.]*$/

/** The folder of a source's log, with its slash. */
export function sourceFolder(source: string): string {
  return `log/${encodeText(source)}/`
}

/** The folder of the leases of a source: no history can have this name, for `=` is followed by two digits there. */
export function leaseFolder(source: string): string {
  return `${sourceFolder(source)}=lease/`
}

export function historyFolder(source: string, history: string): string {
  return `${sourceFolder(source)}${encodeText(history)}/`
}

/** Key of a log object. Keys of one history sort as their positions do. */
export function formatKey(name: ObjectName): string {
  const numbers = [name.offset, name.sequenceFirst, name.sequenceLast].map((number) =>
    String(number).padStart(digits, '0'),
  )
  if (name.writerEpoch !== undefined) numbers.push(String(name.writerEpoch).padStart(8, '0'))
  const last = [encodeText(name.first), encodeText(name.segment), ...numbers].join('-')
  const file = `${last}.${name.kind}.zst.age`
  if (file.length > nameBytesMax) {
    throw new Fault(
      'unsupported',
      `name a log object of segment ${name.segment}: ${file.length} bytes`,
    )
  }
  return `${historyFolder(name.source, name.history)}${file}`
}

/** Reads a key back; undefined when it is no log object's. */
export function parseKey(key: string): ObjectName | undefined {
  const [top, source, history, file, ...more] = key.split('/')
  const match = namePattern.exec(file ?? '')
  if (top !== 'log' || !source || !history || !match || more.length > 0) return undefined
  const [, first = '', segment = '', offset, sequenceFirst, sequenceLast, epoch, kind] = match
  const texts = [source, history, first, segment].map(decodeText)
  const [sourceText, historyText, firstText, segmentText] = texts
  if (
    sourceText === undefined ||
    historyText === undefined ||
    firstText === undefined ||
    segmentText === undefined
  ) {
    return undefined
  }
  return {
    kind: kind as ObjectKind,
    source: sourceText,
    history: historyText,
    first: firstText,
    segment: segmentText,
    offset: Number(offset),
    sequenceFirst: Number(sequenceFirst),
    sequenceLast: Number(sequenceLast),
    writerEpoch: epoch === undefined ? undefined : Number(epoch),
  }
}

/** Any text as one part of a key: letters, digits, `_` and inner `.` stay, each other byte of its UTF-8 becomes `=XX`. */
export function encodeText(text: string): string {
  if (plainPattern.test(text)) return text
  if (text === '') return '=='
  return Array.from(Buffer.from(text, 'utf8'), (byte, i) => {
    const letter = String.fromCharCode(byte)
    const stays = /[A-Za-z0-9_]/.test(letter) || (letter === '.' && i > 0)
    return stays ? letter : `=${byte.toString(16).toUpperCase().padStart(2, '0')}`
  }).join('')
}

/** Reads `encodeText` back; undefined when it is not what that writes. */
export function decodeText(encoded: string): string | undefined {
  if (plainPattern.test(encoded)) return encoded
  if (encoded === '==') return ''
  const bytes: number[] = []
  for (const piece of encoded.match(/=[0-9A-F]{2}|[^=]/g) ?? []) {
    bytes.push(piece.length === 3 ? Number.parseInt(piece.slice(1), 16) : piece.charCodeAt(0))
  }
  const text = Buffer.from(bytes).toString('utf8')
  return encodeText(text) === encoded ? text : undefined
}
