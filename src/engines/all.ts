import { Fault } from '#base/faults'
import type { EngineKind } from './engine.ts'

/** Every engine, by the name that the catalog records; loaded when first asked for. */
const loaders: Readonly<Record<string, () => Promise<EngineKind>>> = {
  postgres: async () => (await import('./postgres/postgres.ts')).postgres,
  mysql: async () => (await import('./mysql/mysql.ts')).mysql,
}

const schemes: Readonly<Record<string, string>> = {
  postgres: 'postgres',
  postgresql: 'postgres',
  mysql: 'mysql',
  mariadb: 'mysql',
}

/** Whether a URL names a database rather than files. */
export function isEngineUrl(url: string): boolean {
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(url)?.[1]
  return scheme !== undefined && Object.hasOwn(schemes, scheme.toLowerCase())
}

/** The engine of a URL, by its scheme. */
export async function engineOfUrl(url: string): Promise<EngineKind> {
  const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(url)?.[1]?.toLowerCase() ?? ''
  const name = Object.hasOwn(schemes, scheme) ? schemes[scheme] : undefined
  if (name !== undefined) return engineNamed(name)
  const lack = scheme === '' ? 'it has no scheme' : `no engine has the scheme '${scheme}:'`
  throw new Fault('usage', `read the URL: ${lack}`, {
    hint: `Known are ${Object.keys(schemes).join(', ')}.`,
  })
}

/** The engine that a vault's records name. */
export async function engineNamed(name: string): Promise<EngineKind> {
  const load = Object.hasOwn(loaders, name) ? loaders[name] : undefined
  if (load) return load()
  throw new Fault(
    'unsupported',
    `load engine '${name}': this version of Redoubt has none of that name`,
  )
}
