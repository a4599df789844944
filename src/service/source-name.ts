import { Fault } from '#base/faults'

const namePattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/

/**
 * The name of a source when the user gave none: host and port of its URL, the first of several (`postgres://a:1,b:2/d`);
 * the scheme where there is neither.
 */
export function defaultSourceName(url: string): string {
  const match = /^([a-z][a-z0-9+.-]*):\/\/(?:[^/?#]*@)?([^/?#,]*)/i.exec(url)
  if (!match) {
    // Not shown: a password may be in it.
    throw new Fault('usage', 'read the source: it is not a URL')
  }
  const [, scheme = '', place = ''] = match
  const name = place.replace(/[^A-Za-z0-9._-]+/g, '-').replace(/^[^A-Za-z0-9]+|-+$/g, '')
  return checkSourceName(name || scheme)
}

/** Refuses a name that could not be part of an object's key. */
export function checkSourceName(name: string): string {
  if (namePattern.test(name)) return name
  throw new Fault('usage', `read --name: '${name}' is not a plain name`, {
    hint: 'Use up to 64 letters, digits, dots, dashes and underscores, a letter or digit first.',
  })
}
