import { readFileSync } from 'node:fs'
import type { Verb } from './verb.ts'

type Version = { readonly version: string; readonly node: string; readonly platform: string }

/** What runs here: the version of package.json, of node, and the machine. */
function readVersion(): Version {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  const { version } = JSON.parse(text) as { readonly version: string }
  return {
    version,
    node: process.versions.node,
    platform: `${process.platform}-${process.arch}`,
  }
}

/** The line that `version` and `--version` print. */
export function versionLine({ version, node, platform } = readVersion()): string {
  return `redoubt ${version} (node ${node}, ${platform})`
}

export const versionVerb: Verb = {
  name: 'version',
  summary: 'which Redoubt this is',
  options: [],
  examples: [['redoubt version --json', 'for a report']],
  async run(_input, { display }) {
    display.result(readVersion(), versionLine)
    return undefined
  },
}
