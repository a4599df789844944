import path from 'node:path'
import { decodeText } from '../../../src/vault/archive/names.ts'
import { type ObjectClass, classOf } from '../killed/vault-world.ts'
import { type Damage, damageObject } from './damage.ts'
import { type Brought, type Commands, look, type Look, type LookName, type Sound } from './look.ts'
import type { Site } from './sites.ts'

/** How a way of looking took the damage. */
export type Taken =
  /** As if nothing were amiss, and what it brought was right. */
  | 'equal'
  /** It mentioned it, and was done all the same: a database, as of the end of what is left of its log. */
  | 'noted'
  /** The newest of the log is gone, and nothing tells that it was there: a database as of before it. */
  | 'earlier'
  /** It said so, and named the object or what it held. */
  | 'named'
  /** It failed without a name. */
  | 'unnamed'
  /** It brought something else, and called it good. */
  | 'WRONG'

export type DamageTrial = {
  readonly class: ObjectClass
  readonly damage: Damage
  readonly key: string
  readonly taken: Readonly<Record<string, Taken>>
  readonly failure?: string | undefined
}

/**
 * What a vault restores without: kept for speed, for the record, or for a while. Their damage must be found where they
 * can be read at all; their loss need not be.
 */
export const needless: ReadonlySet<ObjectClass> = new Set<ObjectClass>([
  // Whoever holds it is found out by its age; one that is no lease counts as none.
  'lease',
  // Of a process that died.
  'lock',
  // What may be deleted: without it nothing is.
  'mark',
  // History, and the second password.
  'gap record',
  'proof record',
  'bundle',
  'password record',
  'identity',
  'key',
])

/** To the repository's format a snapshot that is gone was forgotten. */
const traceless: ReadonlySet<ObjectClass> = new Set<ObjectClass>(['snapshot'])

/** What can be damaged of a class brings out more in some ways of looking than in others: the others are spared. */
function looksAt(key: string, name: LookName): boolean {
  if (name === 'check') return true
  if (key.startsWith('log/')) {
    const ofMetrics = key.startsWith('log/metrics/')
    return name === (ofMetrics ? 'the log of the second source' : 'restore of the database')
  }
  const ofRepository = ['data', 'index', 'snapshot'].includes(classOf(key))
  return name !== 'the log of the second source' || !ofRepository
}

/** Damages one object, looks at the vault in every way, and judges what was seen. */
export async function damageTrial(options: {
  readonly site: Site
  readonly key: string
  readonly damage: Damage
  readonly random: () => number
  readonly commands: Commands
  readonly sound: Sound
  /** Objects that nothing else knows of. */
  readonly newest: ReadonlySet<string>
}): Promise<DamageTrial | undefined> {
  const { site, key, damage, random, commands, sound, newest } = options
  using changed = damageObject(site.url, key, damage, random)
  if (!changed) return undefined
  const taken: Record<string, Taken> = {}
  const said: string[] = []
  for (const [name, right] of sound) {
    if (!looksAt(key, name)) continue
    const seen = await look(name, site, commands)
    const last = damage === 'gone' && newest.has(key)
    taken[name] = judge(name, { key, last }, seen, right)
    if (seen.kind === 'said') said.push(`${name}: ${seen.text.slice(0, 400)}`)
  }
  const trial = { class: classOf(key), damage, key, taken }
  // What no index lists is garbage that a prune has yet to sweep: the check of the sound vault tells of it.
  const garbage = sound.get('check')?.digest.includes(path.basename(key)) ?? false
  const failure = garbage ? undefined : judgeAll(trial)
  return failure ? { ...trial, failure: `${failure}; ${said.join('; ')}` } : trial
}

function judge(
  name: LookName,
  { key, last }: { readonly key: string; readonly last: boolean },
  seen: Look,
  right: Brought,
): Taken {
  if (seen.kind === 'said') return names(key, seen.text) ? 'named' : 'unnamed'
  const { digest, reached, warned = '' } = seen
  if (digest === right.digest && reached === right.reached) return 'equal'
  // A check that found no damage may still have remarks.
  if (name === 'check') return 'noted'
  const before = reached !== undefined && reached < (right.reached ?? '')
  if (before && /newest objects of the log are gone|the log has a hole/.test(warned)) return 'noted'
  return before && last ? 'earlier' : 'WRONG'
}

/** Whether words tell which object it is, or what was in it. */
function names(key: string, text: string): boolean {
  const base = path.basename(key)
  const [first = '', segment = ''] = base.split('-')
  switch (classOf(key)) {
    case 'data':
    case 'index':
      // By what it held: blobs, or files.
      return text.includes(base.slice(0, 8)) || /(blob|tree) [0-9a-f]{8}|damaged files/.test(text)
    case 'log part':
    case 'log run':
    case 'log full':
      // One that is gone, by the hole that it left.
      if (/^gap |"code": ?"gap"/.test(text)) return true
      return [base, first, decodeText(segment) ?? base].some((name) => text.includes(name))
    case 'trim record':
      // One that is gone, by the log that it said was deleted.
      return text.includes(base) || /"code": ?"gap"/.test(text)
    case 'key':
      // With its key gone a password is one that was removed.
      return text.includes(base.slice(0, 8)) || /none of \d+ keys opens/.test(text)
    case 'snapshot':
      return text.includes(base.slice(0, 8)) || /holds no base/.test(text)
    case 'lock':
    case 'mark':
      return text.includes(base.slice(0, 8))
    case 'base record':
      return text.includes(base) || /base/.test(text)
    case 'source record':
      // One that is gone, by what is stored of that source.
      return text.includes(base) || /no source|no database source|"code": ?"unnamed"/.test(text)
    case 'config':
    case 'identity':
    case 'vault record':
    case 'archiver key':
    case 'password record':
      return (
        text.includes(key) || text.includes(base.split('.')[0] ?? base) || /identity/.test(text)
      )
    default:
      return text.includes(base)
  }
}

function judgeAll({ class: kind, damage, taken }: DamageTrial): string | undefined {
  const outcomes = Object.entries(taken)
  const wrong = outcomes.find(([, how]) => how === 'WRONG')
  if (wrong) return `${wrong[0]} brought something else`
  const unnamed = outcomes.find(([, how]) => how === 'unnamed')
  if (unnamed) return `${unnamed[0]} does not name it`
  // What is gone without a trace in what remains: the restore says what it misses, the check cannot.
  if (damage === 'gone' && traceless.has(kind)) return undefined
  if (taken['check'] !== 'equal') return undefined
  if (outcomes.some(([, how]) => how === 'earlier')) return undefined
  const restored = outcomes.every(([name, how]) => name === 'check' || how === 'equal')
  if (!restored) return 'the check finds nothing, and a restore does'
  // All is restored, and the check is content: right for what a vault can do without, when it is gone.
  if (damage === 'gone' || damage === 'empty') return undefined
  return needless.has(kind) ? undefined : 'the check does not find it'
}
