import { Fault } from '#base/faults'

const namePattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/

/** The name of a source when the user gave none: host, port and database of its URL. */
export function defaultSourceName(url: string): string {
  const parsed = URL.parse(url)
  if (!parsed) throw new Fault('usage', `read the source: '${url}' is not a URL`)
  const parts = [parsed.hostname, parsed.port].filter((part) => part !== '')
  return checkSourceName(
    parts.join('-').replace(/[^A-Za-z0-9._-]+/g, '-') || parsed.protocol.slice(0, -1),
  )
}

/** Refuses a name that could not be part of an object's key. */
export function checkSourceName(name: string): string {
  if (namePattern.test(name)) return name
  throw new Fault('usage', `read --name: '${name}' is not a plain name`, {
    hint: 'Use up to 64 letters, digits, dots, dashes and underscores, a letter or digit first.',
  })
}
