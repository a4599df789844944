import { engineOfUrl } from '#engines/all'
import type { Finding } from '#change/finding'
import type { SourceFacts, Use } from '#engines'
import { withoutSecrets } from '#base/urls'
import type { Surroundings } from './open.ts'

export type Inspection = {
  readonly url: string
  readonly facts: SourceFacts
  readonly use: Use
  readonly findings: readonly Finding[]
  /** Nothing stands in the way of the use. */
  readonly fit: boolean
}

/** What a source is, and what it lacks for a use, with the statements that mend it. */
export async function inspect(url: string, use: Use, around: Surroundings): Promise<Inspection> {
  const kind = await engineOfUrl(url)
  await using engine = await kind.open(url, around)
  const findings = await engine.probe(use, around)
  const fit = findings.every((finding) => finding.severity !== 'blocks')
  return { url: withoutSecrets(url), facts: engine.facts, use, findings, fit }
}
