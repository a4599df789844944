export type Level = 'debug' | 'info' | 'warn' | 'error'

/** Facts beside the sentence: never a secret, never a row. */
export type LogFields = Readonly<Record<string, string | number | bigint | boolean | undefined>>

/** Where loops say what they decided: one sentence, then the facts. */
export interface Log {
  debug(said: string, fields?: LogFields): void
  info(said: string, fields?: LogFields): void
  warn(said: string, fields?: LogFields): void
  error(said: string, fields?: LogFields): void
  /** The same log with fields that every line bears. */
  with(fields: LogFields): Log
}

const levels: readonly Level[] = ['debug', 'info', 'warn', 'error']

/** A log that writes one line a call: plain text, or a JSON object when `json` is set. */
export function createLog(options: {
  readonly write: (line: string) => void
  readonly level?: Level | undefined
  readonly json?: boolean | undefined
  readonly now?: (() => number) | undefined
  readonly fields?: LogFields | undefined
}): Log {
  const { write, level = 'info', json = false, now = Date.now, fields = {} } = options
  const emit = (at: Level, said: string, own: LogFields = {}) => {
    if (levels.indexOf(at) < levels.indexOf(level)) return
    const all = { ...fields, ...own }
    const time = new Date(now()).toISOString()
    write(
      json
        ? toJson({ time, level: at, said, ...all })
        : `${time} ${at.padEnd(5)} ${said}${tail(all)}`,
    )
  }
  return {
    debug: (said, own) => emit('debug', said, own),
    info: (said, own) => emit('info', said, own),
    warn: (said, own) => emit('warn', said, own),
    error: (said, own) => emit('error', said, own),
    with: (more) => createLog({ ...options, fields: { ...fields, ...more } }),
  }
}

/** A log that says nothing. */
export const silentLog: Log = createLog({ write: () => undefined })

/** JSON with bigints as numbers' text, for logs and `--json`. */
export function toJson(value: unknown, indent?: number): string {
  return JSON.stringify(
    value,
    (_key, v: unknown) => (typeof v === 'bigint' ? v.toString() : v),
    indent,
  )
}

function tail(fields: LogFields): string {
  const parts = Object.entries(fields).filter(([, value]) => value !== undefined)
  return parts.length === 0 ? '' : ` (${parts.map(([key, value]) => `${key} ${value}`).join(', ')})`
}
