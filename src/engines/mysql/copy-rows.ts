import type {
  BeginCopy,
  CopyReader,
  CopySource,
  CopyTarget,
  CopyWriter,
  OpenCopy,
} from '#change/copy'
import type { Source } from './base.ts'
import { beginMysqlCopy } from './copy-source.ts'
import { openMysqlCopy } from './copy-target.ts'

/** Reads all rows of a server as of one position, and takes rows in. */
export class MysqlRows implements CopySource, CopyTarget {
  readonly #source: Source

  constructor(source: Source) {
    this.#source = source
  }

  async beginCopy(options: BeginCopy): Promise<CopyReader> {
    return beginMysqlCopy(this.#source, options)
  }

  async openCopy(options: OpenCopy): Promise<CopyWriter> {
    return openMysqlCopy(this.#source, options)
  }
}
