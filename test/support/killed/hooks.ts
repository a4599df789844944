/**
 * Preloaded into a command (`--import`): whoever opens a store gets the one of `storage.ts` beside this file, which
 * counts operations and dies at one of them. The program itself knows nothing of it.
 */
import { registerHooks } from 'node:module'

const wanted = new URL('../../../src/storage/all.ts', import.meta.url).href
const instead = new URL('./storage.ts', import.meta.url).href

registerHooks({
  resolve(specifier, context, nextResolve) {
    const resolved = nextResolve(specifier, context)
    const swap = resolved.url === wanted && context.parentURL !== instead
    return swap ? { ...resolved, url: instead } : resolved
  },
})
