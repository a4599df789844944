import { isNewPage, pageChecksum, pageLsn, storedChecksum } from './pages.kernel.ts'

const pageBytes = 8192
/** Of one file so many damaged pages are named. */
export const damagedMax = 20

/** A page whose checksum is wrong. */
export type DamagedPage = { readonly path: string; readonly page: number }

/**
 * Which block of its relation the first page of a file is: `16384.3` holds the fourth segment. Undefined for files that
 * bear no page checksums. `segmentPages` is relation pages per file, 131072 in all builds that are in use.
 */
export function firstBlockOf(path: string, segmentPages = 131_072): number | undefined {
  const match =
    /^(?:base\/\d+|global|pg_tblspc\/\d+\/PG_[^/]+\/\d+)\/(?:t\d+_)?\d+(?:_(?:fsm|vm|init))?(?:\.(\d+))?$/.exec(
      path,
    )
  return match ? Number(match[1] ?? 0) * segmentPages : undefined
}

/**
 * Whether a page bears the right checksum as block `block` of its relation. Pages changed at or behind `before` pass: they
 * may be torn, since they were written while they were read, and the log replaces them.
 */
export function isSound(bytes: Buffer, at: number, block: number, before?: bigint): boolean {
  if (isNewPage(bytes, at)) return true
  if (storedChecksum(bytes, at) === pageChecksum(bytes, at, block)) return true
  return before !== undefined && pageLsn(bytes, at) >= before
}

/** Checks the pages of one relation file while its bytes pass, in pieces cut anywhere. */
export class PageCheck {
  readonly #path: string
  readonly #firstBlock: number
  readonly #before: bigint | undefined
  readonly #part = Buffer.alloc(pageBytes)
  #fill = 0
  #page = 0
  readonly damaged: DamagedPage[] = []

  /** `before`: see `isSound`. */
  constructor(path: string, firstBlock: number, before?: bigint) {
    this.#path = path
    this.#firstBlock = firstBlock
    this.#before = before
  }

  feed(bytes: Buffer): void {
    let at = 0
    if (this.#fill > 0) {
      at = Math.min(pageBytes - this.#fill, bytes.length)
      bytes.copy(this.#part, this.#fill, 0, at)
      this.#fill += at
      if (this.#fill < pageBytes) return
      this.#fill = 0
      this.#check(this.#part, 0)
    }
    for (; at + pageBytes <= bytes.length; at += pageBytes) this.#check(bytes, at)
    this.#fill = bytes.copy(this.#part, 0, at)
  }

  #check(bytes: Buffer, at: number): void {
    const page = this.#page
    this.#page += 1
    if (isSound(bytes, at, this.#firstBlock + page, this.#before)) return
    if (this.damaged.length < damagedMax) this.damaged.push({ path: this.#path, page })
  }
}
