import { readFileSync } from 'node:fs'
import { Fault, fromSystem } from '#base/faults'
import { anyPatterns, compilePatterns } from './patterns.ts'
import type { Marker, ScanRules } from './scan.ts'

/** What a walk takes and leaves out, as the command line has it. Plain data: it goes to another thread. */
export type WalkRules = {
  /** Absolute or relative to `root`; `.` is all that is in that. */
  readonly paths: readonly string[] | readonly Uint8Array[]
  /** The working directory unless given. */
  readonly root?: string | undefined
  readonly excludes?: readonly string[] | undefined
  /** Like `excludes`, in any case. */
  readonly excludesNoCase?: readonly string[] | undefined
  /** Files of patterns, one a line; `#` begins a comment, `$NAME` stands for a variable, `$$` for a dollar. */
  readonly excludeFiles?: readonly string[] | undefined
  readonly excludeFilesNoCase?: readonly string[] | undefined
  /** `name` or `name:header`: leaves out what else is in a directory that holds such a file. */
  readonly excludeIfPresent?: readonly string[] | undefined
  /** Leaves out what directories marked by a CACHEDIR.TAG hold. */
  readonly excludeCaches?: boolean | undefined
  readonly excludeLargerThanBytes?: number | undefined
  readonly oneFileSystem?: boolean | undefined
  readonly sockets?: boolean | undefined
  readonly accessTimes?: boolean | undefined
}

/** The mark of a cache directory, https://bford.info/cachedir/. */
const cacheMarker: Marker = {
  name: 'CACHEDIR.TAG',
  header: 'Signature: 8a477f597d28d172789f06886806bc55',
}

/** Reads the files of patterns and compiles the rest; throws `usage`, or what reading a file yields. */
export function compileRules(rules: WalkRules): ScanRules {
  const sensitive = [...(rules.excludes ?? []), ...linesOf(rules.excludeFiles)]
  const insensitive = [...(rules.excludesNoCase ?? []), ...linesOf(rules.excludeFilesNoCase)]
  const markers = (rules.excludeIfPresent ?? []).map(parseMarker)
  return {
    paths: rules.paths.map((path) => Buffer.from(path as Uint8Array)),
    workingDirectory: Buffer.from(rules.root ?? process.cwd()),
    excluded: anyPatterns([
      compilePatterns(sensitive),
      compilePatterns(insensitive, { insensitive: true }),
    ]),
    markers: rules.excludeCaches ? [...markers, cacheMarker] : markers,
    ...(rules.excludeLargerThanBytes !== undefined && {
      largerThanBytes: BigInt(rules.excludeLargerThanBytes),
    }),
    oneFileSystem: rules.oneFileSystem ?? false,
    sockets: rules.sockets ?? false,
    accessTimes: rules.accessTimes ?? false,
  }
}

function linesOf(files: readonly string[] = []): string[] {
  return files.flatMap((file) =>
    readText(file)
      .split('\n')
      .map((line) => line.trim())
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map(expandVariables),
  )
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8').replace(/^\uFEFF/, '')
  } catch (error) {
    throw fromSystem(error, `read the patterns in ${file}`)
  }
}

function expandVariables(line: string): string {
  return line.replace(
    /\$(?:\$|(\w+)|\{(\w+)\})/g,
    (whole, bare: string | undefined, braced: string | undefined) =>
      whole === '$$' ? '$' : (process.env[bare ?? braced ?? ''] ?? ''),
  )
}

function parseMarker(text: string): Marker {
  const colon = text.indexOf(':')
  const name = colon < 0 ? text : text.slice(0, colon)
  if (name === '' || name.includes('/'))
    throw new Fault('usage', `read the marker ${JSON.stringify(text)}: it names no file`, {
      hint: 'Give the name of a file, or name:header.',
    })
  return { name, header: colon < 0 ? undefined : text.slice(colon + 1) }
}
