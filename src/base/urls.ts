/** A URL as it may be shown and stored: no password in it. What is no URL comes back as it is. */
export function withoutSecrets(url: string): string {
  const parsed = URL.parse(url)
  if (!parsed?.password) return url
  parsed.password = ''
  return parsed.toString()
}
