import { Fault } from '#base/faults'

/**
 * Inside this engine a position is a place in a numbered binary log file. As text it sorts: number, offset, and for a
 * place inside a file the time stamp of the file's first event, by which a file of the same name that was made after
 * a `RESET MASTER` is told from the one that was read before.
 */
export type Place = {
  readonly file: number
  readonly offset: number
  /** Seconds since 1970 in the header of the file's first event. */
  readonly stamp?: number | undefined
}

const pattern = /^(\d{10})\.(\d{12})(?:\.([0-9a-f]{8}))?$/

/** The start of the very first file: before all there is. */
export const beginning = formatPlace({ file: 0, offset: 0 })

export function formatPlace(place: Place): string {
  const { file, offset, stamp } = place
  const tail = offset === 0 || stamp === undefined ? '' : `.${stamp.toString(16).padStart(8, '0')}`
  return `${String(file).padStart(10, '0')}.${String(offset).padStart(12, '0')}${tail}`
}

export function parsePlace(text: string): Place {
  const match = pattern.exec(text)
  if (!match) throw new Fault('usage', `read position ${text}: it is none of this engine`)
  const [, file = '', offset = '', stamp] = match
  return {
    file: Number(file),
    offset: Number(offset),
    stamp: stamp === undefined ? undefined : Number.parseInt(stamp, 16),
  }
}

/** What comes first: negative, zero or positive as in sorting. */
export function comparePlaces(a: Place, b: Place): number {
  return a.file - b.file || a.offset - b.offset
}

/** The number of a binary log file: `binlog.000012` is 12. */
export function fileNumber(name: string): number {
  const digits = /\.(\d+)$/.exec(name)?.[1]
  if (digits === undefined) throw new Fault('protocol', `read binary log name ${name}: no number`)
  return Number(digits)
}
