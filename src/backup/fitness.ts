import { Fault } from '#base/faults'
import type { Log } from '#base/log'
import type { Engine, Use } from '#engines'

/** Refuses a source that lacks what a use needs: all that is in the way, with the statements that mend it. */
export async function refuseUnfit(
  engine: Engine,
  use: Use,
  options: { readonly doing: string; readonly log: Log; readonly signal: AbortSignal },
): Promise<void> {
  const { doing, log, signal } = options
  const findings = await engine.probe(use, { signal })
  for (const { said, mend } of findings.filter(({ severity }) => severity === 'warns')) {
    log.warn(said, { mend })
  }
  const blocks = findings.filter(({ severity }) => severity === 'blocks')
  if (blocks.length === 0) return
  const mends = blocks.flatMap(({ mend }) => mend ?? [])
  throw new Fault('refused', `${doing}: ${blocks.map(({ said }) => said).join('; ')}`, {
    hint: mends.length > 0 ? `Run on the source: ${mends.join('; ')}` : undefined,
  })
}
