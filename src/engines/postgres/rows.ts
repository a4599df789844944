import type {
  BeginCopy,
  CopyReader,
  CopySource,
  CopyTarget,
  CopyWriter,
  OpenCopy,
} from '#change/copy'
import type { Address } from './connection.ts'
import { PostgresCopyReader } from './copy-reader.ts'
import { PostgresCopyWriter } from './copy-writer.ts'
import type { ServerFacts } from './facts.ts'

/** Rows from and to a PostgreSQL server by COPY: what one server sends is passed on to the other as it is. */
export class PostgresRows implements CopySource, CopyTarget {
  readonly #address: Address
  readonly #facts: ServerFacts

  constructor(address: Address, facts: ServerFacts) {
    this.#address = address
    this.#facts = facts
  }

  async beginCopy(options: BeginCopy): Promise<CopyReader> {
    return PostgresCopyReader.begin(this.#address, this.#facts, options)
  }

  async openCopy(options: OpenCopy): Promise<CopyWriter> {
    return PostgresCopyWriter.open(this.#address, options)
  }
}
