const startBytes = 64 * 1024
/** What a large value made of it is not kept. */
const keptMaxBytes = 4 * 1024 * 1024
const quote = 0x27

/** Text of statements on its way to a server, in memory that is used again. */
export class SqlBuffer {
  #bytes = Buffer.allocUnsafeSlow(startBytes)
  #used = 0

  get sizeBytes(): number {
    return this.#used
  }

  /** A view of what was written from `start` on: right until the next `clear`, unless more is written before it is used. */
  view(start: number, end: number): Buffer {
    return this.#bytes.subarray(start, end)
  }

  /** Takes back what was written behind `sizeBytes`. */
  cut(sizeBytes: number): void {
    this.#used = Math.min(this.#used, sizeBytes)
  }

  clear(): void {
    this.#used = 0
    if (this.#bytes.length > keptMaxBytes) this.#bytes = Buffer.allocUnsafeSlow(startBytes)
  }

  ascii(text: string): void {
    this.#room(text.length)
    this.#used += this.#bytes.write(text, this.#used, 'latin1')
  }

  raw(bytes: Buffer): void {
    this.#room(bytes.length)
    this.#used += bytes.copy(this.#bytes, this.#used)
  }

  /** A string literal's inside and its quotes. Backslashes mean themselves in these sessions; only quotes are doubled. */
  quoted(bytes: Buffer, start: number, end: number): void {
    this.#room(2 * (end - start) + 2)
    const out = this.#bytes
    let at = this.#used
    out[at++] = quote
    if (end - start > 32 && !bytes.subarray(start, end).includes(quote)) {
      at += bytes.copy(out, at, start, end)
    } else {
      for (let from = start; from < end; from++) {
        const byte = bytes[from] ?? 0
        out[at++] = byte
        if (byte === quote) out[at++] = quote
      }
    }
    out[at++] = quote
    this.#used = at
  }

  quotedText(text: string): void {
    const bytes = Buffer.from(text)
    this.quoted(bytes, 0, bytes.length)
  }

  hex(bytes: Buffer, start: number, end: number): void {
    this.ascii(`x'${bytes.toString('hex', start, end)}'`)
  }

  #room(size: number): void {
    const need = this.#used + size
    if (need <= this.#bytes.length) return
    const larger = Buffer.allocUnsafeSlow(Math.max(need, 2 * this.#bytes.length))
    this.#bytes.copy(larger, 0, 0, this.#used)
    this.#bytes = larger
  }
}
