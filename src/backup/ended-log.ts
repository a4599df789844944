import type { LogReader, Position } from '#change'

/** The log up to where a window ends: what lies behind the hole there is not looked for, and not asked about. */
export function endLogAt(log: LogReader, end: Position): LogReader {
  return {
    async *segments(first, options) {
      for await (const segment of log.segments(first, options)) {
        yield segment
        if (segment.history === end.history && segment.next >= end.at) return
      }
    },
    read: (segment, options) => log.read(segment, options),
  }
}
