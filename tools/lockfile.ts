export type LockedPackage = {
  readonly version?: string
  readonly optionalDependencies?: Readonly<Record<string, string>>
  readonly [field: string]: unknown
}

export type Lock = {
  readonly packages: Readonly<Record<string, LockedPackage>>
  readonly [field: string]: unknown
}

/**
 * Optional packages that the lockfile names but does not hold. `npm ci` refuses a lockfile with such a hole; npm
 * leaves one when the registry of the day does not carry the packages of other platforms.
 */
export function missingOptional(lock: Lock): { name: string; version: string; dev: boolean }[] {
  const held = lock.packages
  return Object.entries(held).flatMap(([place, { optionalDependencies = {}, dev }]) =>
    Object.entries(optionalDependencies)
      .filter(([name]) => !held[`node_modules/${name}`] && !held[`${place}/node_modules/${name}`])
      .map(([name, version]) => ({ name, version, dev: dev === true })),
  )
}

/**
 * Optional packages that ask for a version of Node. npm leaves out, without a word, those that do not fit the Node that
 * npm itself runs on; but what is installed here runs on the Node that comes with it.
 */
export function tiedToNode(lock: Lock): string[] {
  return Object.entries(lock.packages).flatMap(([place, { optional, engines }]) =>
    optional === true && engines !== undefined ? place : [],
  )
}

/**
 * The lockfile that any npm can install from: with an entry for each package that is missing, whose platform, read off its
 * name, keeps npm from installing it here; and without what ties an optional package to npm's own Node.
 */
export function completeLock(lock: Lock): Lock {
  const packages: Record<string, LockedPackage> = { ...lock.packages }
  for (const place of tiedToNode(lock)) {
    const { engines: _, ...free } = packages[place] ?? {}
    packages[place] = free
  }
  for (const { name, version, dev } of missingOptional(lock)) {
    if (!/^\d/.test(version)) throw new Error(`${name} asks for ${version}: no exact version`)
    const entry = { version, ...platformOf(name), ...(dev ? { dev } : {}), optional: true }
    packages[`node_modules/${name}`] = entry
  }
  const names = Object.keys(packages).sort((a, b) => (a < b ? -1 : 1))
  return { ...lock, packages: Object.fromEntries(names.map((n) => [n, packages[n] ?? {}])) }
}

function platformOf(name: string): { os: string[]; cpu: string[]; libc?: string[] } {
  const match = /(android|darwin|freebsd|linux|openharmony|win32)-([a-z0-9]+)(?:-(.+))?$/.exec(name)
  const [, os, cpu, abi = ''] = match ?? []
  if (os === undefined || cpu === undefined) throw new Error(`${name} names no platform`)
  const libc = /musl/.test(abi) ? 'musl' : /gnu/.test(abi) && os === 'linux' ? 'glibc' : undefined
  return { os: [os], cpu: [cpu], ...(libc ? { libc: [libc] } : {}) }
}
