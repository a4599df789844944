import { createHash } from 'node:crypto'
import { mkdirSync, openSync, writeSync, closeSync, writeFileSync } from 'node:fs'
import path from 'node:path'

// Generated files for benchmarks of backups: the same bytes for the same seed on every machine.

const mebi = 1024 * 1024
const words =
  'alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa pending shipped paid cancelled Berlin Paris Madrid Warsaw'.split(
    ' ',
  )

/** A small, fast generator (xorshift) with a state of its own. */
export class Dice {
  #state: number

  constructor(seed: number) {
    this.#state = (seed * 2_654_435_761) >>> 0 || 1
  }

  next(): number {
    this.#state ^= this.#state << 13
    this.#state ^= this.#state >>> 17
    this.#state ^= this.#state << 5
    return this.#state >>> 0
  }

  below(limit: number): number {
    return this.next() % limit
  }

  word(): string {
    return words[this.below(words.length)] ?? ''
  }
}

function textRow(dice: Dice, id: number): string {
  if (id % 4 === 0) {
    const digits = Array.from({ length: 10 }, () => String(dice.next()).padStart(11, '0')).join('-')
    return `(${id},${dice.below(2_000_000)},'${digits}'),\n`
  }
  const at = `2026-0${1 + dice.below(9)}-1${dice.below(10)} 1${dice.below(10)}:${10 + dice.below(50)}`
  const note = Array.from({ length: 6 }, () => dice.word()).join(' ')
  return `(${id},'${dice.word()}${dice.below(1000)}@example.com','${at}',${dice.below(1e5)}.${dice.below(100)},'{"status":"${dice.word()}","note":"${note}"}'),\n`
}

/** Like a dump: rows of text. */
export function textBytes(size: number, seed: number): Buffer {
  const dice = new Dice(seed)
  const bytes = Buffer.allocUnsafe(size)
  for (let at = 0, id = seed * 1_000_000; at < size; id++) {
    at += bytes.write(textRow(dice, id), at, size - at, 'latin1')
  }
  return bytes
}

/** Like a database file: pages of 16 KiB with sorted numbers, short text and free space. */
export function pageBytes(size: number, seed: number): Buffer {
  const dice = new Dice(seed)
  const bytes = Buffer.alloc(size)
  for (let page = 0; page + 16_384 <= size; page += 16_384) {
    bytes.writeUInt32BE(dice.next(), page)
    bytes.writeUInt32BE(page >>> 14, page + 4)
    const end = page + 9000 + dice.below(6000)
    for (let at = page + 120, id = dice.below(1e6); at < end; id++) {
      bytes.writeUInt32BE(id, at)
      bytes.writeUInt32BE(dice.next(), at + 4)
      at += 8
      at += bytes.write(`status=paid;ref=${dice.below(1e8).toString(36)};`, at, 'latin1')
    }
  }
  return bytes
}

/** Like archives, pictures and ciphertext: nothing in it compresses. */
export function randomBytes(size: number, seed: number): Buffer {
  return createHash('shake256', { outputLength: size }).update(`seed ${seed}`).digest()
}

/**
 * Fills a folder with `sizeBytes` of files: nine tenths in files of up to 256 MiB (45 % text, 25 % pages,
 * 15 % repetitions at odd offsets, 15 % random), one tenth in small files in many folders.
 */
export function makeMixedData(folder: string, sizeBytes: number): void {
  mkdirSync(path.join(folder, 'large'), { recursive: true })
  const block = 8 * mebi
  const blocks = Math.max(4, Math.floor((sizeBytes * 0.9) / block))
  const perFile = Math.max(2, Math.min(32, Math.ceil(blocks / 8)))
  const earlier: Buffer[] = []
  let file = -1
  for (let i = 0; i < blocks; i++) {
    if (i % perFile === 0) {
      if (file >= 0) closeSync(file)
      file = openSync(path.join(folder, 'large', `f${i / perFile}.bin`), 'w')
    }
    const bytes = mixedBlock(block, i, earlier)
    if (i % 20 < 14 && earlier.length < 12 && i % 3 === 0) earlier.push(bytes)
    writeSync(file, bytes)
  }
  closeSync(file)
  makeSmallFiles(path.join(folder, 'small'), sizeBytes * 0.1)
}

function mixedBlock(size: number, index: number, earlier: readonly Buffer[]): Buffer {
  const dice = new Dice(index + 7)
  const share = (index * 7) % 20
  if (share < 9) return textBytes(size, index)
  if (share < 14) return pageBytes(size, index)
  const old = earlier[dice.below(Math.max(1, earlier.length))]
  if (share < 17 && old)
    return Buffer.concat([old.subarray(1000 + dice.below(5000)), Buffer.from('x')])
  return randomBytes(size, index)
}

function makeSmallFiles(folder: string, sizeBytes: number): void {
  const dice = new Dice(99)
  for (let i = 0, left = sizeBytes; left > 0; i++) {
    const place = path.join(folder, `d${Math.floor(i / 50)}`)
    if (i % 50 === 0) mkdirSync(place, { recursive: true })
    const size = 200 + dice.below(i % 10 === 0 ? 120_000 : 12_000)
    const bytes = i % 5 === 0 ? randomBytes(size, i) : textBytes(size, i)
    writeFileSync(path.join(place, `file${i}.txt`), bytes)
    left -= size
  }
}

/** Overwrites about one part in twenty of the large files, in runs of 1 MiB, and adds some small files. */
export function changeMixedData(folder: string, sizeBytes: number): void {
  const dice = new Dice(5)
  const block = 8 * mebi
  const blocks = Math.max(4, Math.floor((sizeBytes * 0.9) / block))
  const perFile = Math.max(2, Math.min(32, Math.ceil(blocks / 8)))
  for (let i = 0; i < Math.max(1, Math.ceil((sizeBytes * 0.05) / mebi)); i++) {
    const target = dice.below(blocks)
    const file = path.join(folder, 'large', `f${Math.floor(target / perFile)}.bin`)
    const descriptor = openSync(file, 'r+')
    const at = (target % perFile) * block + dice.below(7) * mebi + dice.below(4096)
    writeSync(descriptor, textBytes(mebi, 5000 + i), 0, mebi, at)
    closeSync(descriptor)
  }
  mkdirSync(path.join(folder, 'small', 'new'), { recursive: true })
  for (let i = 0; i < 20; i++) {
    writeFileSync(path.join(folder, 'small', 'new', `n${i}`), textBytes(5000, 9000 + i))
  }
}
