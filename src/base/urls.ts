/**
 * A URL as it may be shown and stored: no password in it. What is no URL comes back as it is. Read by pattern, since lists
 * of hosts (`postgres://u:p@a:1,b:2/d`) are no URLs to the platform, and must not slip through with their password.
 */
export function withoutSecrets(url: string): string {
  const match = /^([a-z][a-z0-9+.-]*:\/\/)([^/?#]*)@(.*)$/is.exec(url)
  if (!match) return url
  const [, scheme = '', login = '', rest = ''] = match
  const [user = ''] = login.split(':')
  return user === '' ? `${scheme}${rest}` : `${scheme}${user}@${rest}`
}
