import { openStorage } from '#storage/all'
import { initVault, openVault } from '#vault'

const cost = { repository: { n: 2, r: 8, p: 1 }, identity: 1 }
const signal = new AbortController().signal

/** Makes an empty vault whose passwords cost little: trials open it thousands of times. */
export async function initCheapVault(url: string, password: string): Promise<void> {
  const storage = await openStorage(url, { create: true })
  await using _vault = await initVault(storage, { password, cost, signal })
}

/** Another password of that kind. */
export async function addCheapPassword(
  url: string,
  password: string,
  more: { readonly name: string; readonly password: string },
): Promise<void> {
  await using vault = await openVault(await openStorage(url), { password, cost, signal })
  await vault.keys.add(more.name, more.password, { signal })
}
