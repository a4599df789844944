import { isRoom, rooms } from './rooms.ts'

export type Import = { readonly line: number; readonly specifier: string }

const patterns = [
  /^\s*import\s+'([^']+)'/,
  /^(?:import|export)\b.*\bfrom '([^']+)'/,
  /^\} from '([^']+)'/,
  /\bimport\('([^']+)'\)/,
  /\bnew URL\('(\.[^']*\.ts)', import\.meta\.url\)/,
]

/** Everything that a file of formatted TypeScript imports, files that it starts as workers included. */
export function readImports(text: string): Import[] {
  return text.split('\n').flatMap((content, index) => {
    const found = patterns.map((pattern) => pattern.exec(content)?.[1])
    const specifier = found.find((part) => part !== undefined)
    return specifier === undefined ? [] : [{ line: index + 1, specifier }]
  })
}

/** Why a file may not import that; undefined when it may. Paths are relative to the checkout. */
export function judgeImport(file: string, specifier: string): string | undefined {
  if (specifier.startsWith('.')) return judgeRelative(file, specifier)
  if (!specifier.startsWith('#')) return undefined
  const [from] = roomOf(file)
  const [room = '', ...rest] = specifier.slice(1).split('/')
  if (!isRoom(room)) return `${specifier} is no door of a room in the table`
  if (from === undefined || isTest(file)) {
    const free = !file.startsWith('tools/') || room === 'base'
    return free ? undefined : 'tools/ may import base only'
  }
  if (room === from) {
    // An implementation names the interface that it fulfils by its door; all else inside a room is relative.
    const interfaceOnly = rest.length === 0 && isSocket(room) && file.split('/').length > 3
    return interfaceOnly ? undefined : `inside a room imports are relative`
  }
  if (!rooms[from].some((allowed) => allowed === room)) return `${from} may not import ${room}`
  if (rest.at(-1) === 'all' && from !== 'service') return `only service imports an all.ts`
  return undefined
}

function judgeRelative(file: string, specifier: string): string | undefined {
  if (!/\.(ts|js|json|wasm)$/.test(specifier)) return `${specifier} names no file ending`
  const target = join(file, specifier)
  const [from, ...fromRest] = roomOf(file)
  const [to, ...toRest] = roomOf(target)
  if (isTest(file)) return undefined
  if (from === undefined) {
    return to === undefined ? undefined : `${specifier} enters ${to} beside its door`
  }
  if (to !== from) return `${specifier} leaves the room ${from}`
  // A folder of the engines room is an engine; what stands beside the folders is common to all.
  const sibling = from === 'engines' && toRest.length > 1 && fromRest[0] !== toRest[0]
  const wires = fromRest[0] === 'all.ts'
  return sibling && !wires ? `${fromRest[0]} may not import its sibling ${toRest[0]}` : undefined
}

/** Rooms with several implementations of one interface. */
function isSocket(room: string): boolean {
  return room === 'engines' || room === 'storage'
}

/** Tests, the suites that they share, and benches may look at everything. */
function isTest(file: string): boolean {
  return /\.(test|suite)\.ts$/.test(file) || file.startsWith('test/') || file.startsWith('bench/')
}

function roomOf(file: string): [keyof typeof rooms, ...string[]] | [undefined] {
  const [top, room = '', ...rest] = file.split('/')
  return top === 'src' && isRoom(room) ? [room, ...rest] : [undefined]
}

function join(file: string, specifier: string): string {
  const parts = file.split('/').slice(0, -1)
  for (const part of specifier.split('/')) {
    if (part === '..') parts.pop()
    else if (part !== '.') parts.push(part)
  }
  return parts.join('/')
}
