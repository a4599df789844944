import { Fault } from '#base/faults'
import type { OptionSpec, Verb, VerbGroup } from './verb.ts'

/** The command line as a shell completes it. */
export type Surface = {
  readonly verbs: readonly (Verb | VerbGroup)[]
  readonly common: readonly OptionSpec[]
}

/** One place of the command line: `restore`, `vault check`. */
type Place = { readonly words: readonly [string, ...string[]]; readonly verb: Verb }

/** An option as a shell sees it. */
type Flag = {
  readonly long: string | undefined
  readonly short: string | undefined
  readonly help: string
  readonly many: boolean
  /** What its value may be; undefined for one that takes none. */
  readonly value: readonly string[] | 'path' | 'other' | undefined
}

const shells = ['bash', 'zsh', 'fish'] as const

/** `redoubt completion SHELL`: the script is made from the very table that the parser is made from. */
export function completionVerb(surface: () => Surface): Verb {
  return {
    name: 'completion',
    summary: 'the script that lets a shell complete verbs and options',
    operands: '<shell>',
    operandChoices: shells,
    options: [],
    examples: [
      ['eval "$(redoubt completion bash)"', 'for this shell, or in ~/.bashrc'],
      ['redoubt completion zsh > ~/.zfunc/_redoubt', 'in a folder of $fpath'],
      ['redoubt completion fish > ~/.config/fish/completions/redoubt.fish', 'for each new shell'],
    ],
    async run(input) {
      const [name] = input.operands
      const shell = shells.find((one) => one === name)
      if (!shell) {
        throw new Fault('usage', `completion: '${name}' is not one of ${shells.join(', ')}`)
      }
      process.stdout.write(completionScript(shell, surface()))
      return undefined
    },
  }
}

/** The whole script for one shell. */
export function completionScript(shell: (typeof shells)[number], surface: Surface): string {
  const writers = { bash: bashScript, zsh: zshScript, fish: fishScript }
  return writers[shell](surface)
}

function placesOf({ verbs }: Surface): Place[] {
  return verbs.flatMap((entry): Place[] =>
    'verbs' in entry
      ? entry.verbs.map((verb) => ({ words: [entry.name, verb.name], verb }))
      : [{ words: [entry.name], verb: entry }],
  )
}

function flagsOf({ verb }: Place, { common }: Surface): Flag[] {
  const help: OptionSpec = { flags: '-h, --help', help: 'the help page' }
  return [...verb.options, ...common, help].map((spec) => ({
    long: /--[a-z0-9-]+/.exec(spec.flags)?.[0],
    short: /(?<![a-z0-9-])-[A-Za-z](?![a-z0-9-])/.exec(spec.flags)?.[0],
    help: spec.help,
    many: spec.many === true,
    value: valueOf(spec),
  }))
}

/** Vaults may be folders, and so may targets: whatever names a place is completed as a path. */
const pathPlaceholders = /<(?:url|file|dir|target|path)>/

function valueOf(spec: OptionSpec): Flag['value'] {
  if (!/[<[]/.test(spec.flags)) return undefined
  return spec.choices ?? (pathPlaceholders.test(spec.flags) ? 'path' : 'other')
}

const namesOf = (flags: readonly Flag[]) =>
  flags.flatMap(({ short, long }) => [short ?? [], long ?? []].flat())

function bashScript(surface: Surface): string {
  const places = placesOf(surface)
  const values = places.flatMap((place) =>
    flagsOf(place, surface).flatMap((flag) => {
      if (flag.value === undefined) return []
      const patterns = namesOf([flag]).map((name) => `'${place.words.join(' ')} ${name}'`)
      return [`    ${patterns.join(' | ')}) ${bashValue(flag.value)} ;;`]
    }),
  )
  const options = places.map((place) => {
    const names = namesOf(flagsOf(place, surface)).join(' ')
    const operands = place.verb.operandChoices?.join(' ') ?? ''
    return `    '${place.words.join(' ')}') options='${names}' operands='${operands}' ;;`
  })
  const groups = surface.verbs.flatMap((entry) =>
    'verbs' in entry
      ? [`    ${entry.name}) words='${entry.verbs.map(({ name }) => name).join(' ')}' ;;`]
      : [],
  )
  return `# Made by: redoubt completion bash
_redoubt_paths() {
  compopt -o filenames 2>/dev/null
  mapfile -t COMPREPLY < <(compgen -f -- "$1")
}
_redoubt_words() {
  mapfile -t COMPREPLY < <(compgen -W "$1" -- "$2")
}
_redoubt() {
  local current=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD-1]}
  local place=\${COMP_WORDS[1]} first=2 words= options= operands=
  COMPREPLY=()
  # --option=value comes as three words.
  if [ "$current" = '=' ]; then
    current=
  elif [ "$before" = '=' ]; then
    before=\${COMP_WORDS[COMP_CWORD-2]}
  fi
  if [ "$COMP_CWORD" -eq 1 ]; then
    _redoubt_words '${surface.verbs.map(({ name }) => name).join(' ')} help --help --version' "$current"
    return
  fi
  case $place in
    help) words='${surface.verbs.map(({ name }) => name).join(' ')}' ;;
${groups.join('\n')}
  esac
  if [ -n "$words" ]; then
    if [ "$COMP_CWORD" -eq 2 ]; then
      _redoubt_words "$words" "$current"
      return
    fi
    place="$place \${COMP_WORDS[2]}" first=3
  fi
  case "$place $before" in
${values.join('\n')}
  esac
  case $place in
${options.join('\n')}
    *) return ;;
  esac
  case $current in
    -*) _redoubt_words "$options" "$current" ;;
    *)
      if [ -n "$operands" ] && [ "$COMP_CWORD" -eq "$first" ]; then
        _redoubt_words "$operands" "$current"
      else
        _redoubt_paths "$current"
      fi
      ;;
  esac
}
complete -F _redoubt redoubt ./redoubt
`
}

function bashValue(value: NonNullable<Flag['value']>): string {
  if (value === 'path') return '_redoubt_paths "$current"; return'
  return value === 'other' ? 'return' : `_redoubt_words '${value.join(' ')}' "$current"; return`
}

function zshScript(surface: Surface): string {
  const describe = (entries: readonly { readonly name: string; readonly summary: string }[]) =>
    entries.map(({ name, summary }) => quote(`${name}:${summary}`)).join(' ')
  const verbCase = (verb: Verb, words: Place['words'], indent: string) => {
    const specs = flagsOf({ words, verb }, surface).flatMap(zshFlag)
    if (verb.operandChoices) specs.push(quote(`1:operand:(${verb.operandChoices.join(' ')})`))
    specs.push(quote('*:operand:_files'))
    return `${indent}${verb.name}) _arguments -s ${specs.join(' ')} ;;`
  }
  const cases = surface.verbs.map((entry) => {
    if (!('verbs' in entry)) return verbCase(entry, [entry.name], '    ')
    return `    ${entry.name})
      if (( CURRENT == 2 )); then
        entries=(${describe(entry.verbs)})
        _describe verb entries
        return
      fi
      shift words
      (( CURRENT-- ))
      case $words[1] in
${entry.verbs.map((verb) => verbCase(verb, [entry.name, verb.name], '        ')).join('\n')}
      esac ;;`
  })
  return `#compdef redoubt
# Made by: redoubt completion zsh
_redoubt() {
  local -a entries
  if (( CURRENT == 2 )); then
    entries=(${describe([...surface.verbs, { name: 'help', summary: 'the help page of a verb' }])})
    _describe verb entries
    return
  fi
  shift words
  (( CURRENT-- ))
  case $words[1] in
${cases.join('\n')}
  esac
}
if [ "$funcstack[1]" = _redoubt ]; then _redoubt "$@"; else compdef _redoubt redoubt; fi
`
}

function zshFlag({ long, short, help, many, value }: Flag): string[] {
  const said = help.replaceAll(/[[\]\\:]/g, '\\$&')
  const action = value === 'path' ? '_files' : value === 'other' ? ' ' : `(${value?.join(' ')})`
  return [short ?? [], long ?? []].flat().map((name) => {
    const head = `${many ? '*' : ''}${name}`
    return quote(`${head}[${said}]${value === undefined ? '' : `:value:${action}`}`)
  })
}

function fishScript(surface: Surface): string {
  const lines = surface.verbs.map(
    ({ name, summary }) =>
      `complete -c redoubt -f -n __fish_use_subcommand -a ${name} -d ${quote(summary)}`,
  )
  for (const entry of surface.verbs) {
    if (!('verbs' in entry)) continue
    const names = entry.verbs.map(({ name }) => name).join(' ')
    const condition = `__fish_seen_subcommand_from ${entry.name}; and not __fish_seen_subcommand_from ${names}`
    for (const { name, summary } of entry.verbs)
      lines.push(`complete -c redoubt -f -n ${quote(condition)} -a ${name} -d ${quote(summary)}`)
  }
  for (const place of placesOf(surface)) {
    const condition = quote(
      place.words.map((word) => `__fish_seen_subcommand_from ${word}`).join('; and '),
    )
    if (place.verb.operandChoices)
      lines.push(
        `complete -c redoubt -f -n ${condition} -a ${quote(place.verb.operandChoices.join(' '))}`,
      )
    for (const { long, short, help, value } of flagsOf(place, surface)) {
      const names = [long ? `-l ${long.slice(2)}` : [], short ? `-s ${short.slice(1)}` : []].flat()
      lines.push(
        `complete -c redoubt -n ${condition} ${names.join(' ')}${fishValue(value)} -d ${quote(help)}`,
      )
    }
  }
  return `# Made by: redoubt completion fish\n${lines.join('\n')}\n`
}

function fishValue(value: Flag['value']): string {
  if (value === undefined) return ''
  if (value === 'path') return ' -r -F'
  return value === 'other' ? ' -x' : ` -x -a ${quote(value.join(' '))}`
}

/** As one word of any of the three shells. */
function quote(text: string): string {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`
}
