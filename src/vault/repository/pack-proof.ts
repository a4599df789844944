import { Fault, isFault } from '#base/faults'
import { sha256Hex } from './blob-id.ts'
import type { IndexedPack, PackedBlob } from './repository.ts'

/** What reading a pack brought to light. */
export type PackDamage = {
  readonly said: readonly string[]
  /** Blobs that cannot be had from this pack. */
  readonly blobs: readonly string[]
}

/** What takes packs apart: a repository, or a worker that has its keys. */
export interface PackOpener {
  decodePack(pack: string, bytes: Buffer): PackedBlob[]
  viewBlob(blob: Pick<PackedBlob, 'id' | 'type' | 'plainLength'>, envelope: Buffer): Buffer
}

/**
 * Proves all of a pack: its name, its header against the index, each blob by its authenticator and its id.
 * Undefined when it is sound.
 */
export function provePack(
  opener: PackOpener,
  pack: IndexedPack,
  bytes: Buffer,
): PackDamage | undefined {
  const proof = new PackProof(pack)
  proof.name(sha256Hex(bytes))
  proof.header(() => opener.decodePack(pack.id, bytes))
  for (const blob of pack.blobs) {
    proof.blob(opener, blob, bytes.subarray(blob.offset, blob.offset + blob.length))
  }
  return proof.damage()
}

/** Gathers what is wrong with one pack. */
export class PackProof {
  readonly #pack: IndexedPack
  readonly #said: string[] = []
  readonly #damaged: string[] = []

  constructor(pack: IndexedPack) {
    this.#pack = pack
  }

  name(sha256: string): void {
    if (sha256 !== this.#pack.id) this.#said.push('its bytes do not match its name')
  }

  header(read: () => readonly PackedBlob[]): void {
    this.#attempt(() => {
      if (!areSame(this.#pack.blobs, read())) {
        throw new Fault('corrupt', 'its header lists other blobs than the index')
      }
    })
  }

  blob(opener: PackOpener, blob: PackedBlob, envelope: Buffer): void {
    const sound = this.#attempt(() => {
      if (envelope.length !== blob.length) {
        throw new Fault(
          'corrupt',
          `read ${blob.type} blob ${blob.id}: the pack ends before it does`,
        )
      }
      opener.viewBlob(blob, envelope)
    })
    if (!sound) this.#damaged.push(blob.id)
  }

  /** The pack cannot be read at all. */
  lost(fault: Fault): void {
    this.#said.push(fault.message)
    for (const { id } of this.#pack.blobs) this.#damaged.push(id)
  }

  damage(): PackDamage | undefined {
    return this.#said.length === 0 ? undefined : { said: this.#said, blobs: this.#damaged }
  }

  #attempt(proof: () => void): boolean {
    try {
      proof()
      return true
    } catch (error) {
      if (!isFault(error, 'corrupt')) throw error
      this.#said.push(error.message)
      return false
    }
  }
}

function areSame(indexed: readonly PackedBlob[], listed: readonly PackedBlob[]): boolean {
  const inOrder = indexed.toSorted((a, b) => a.offset - b.offset)
  return inOrder.length === listed.length && inOrder.every((blob, at) => isSame(blob, listed[at]))
}

function isSame(a: PackedBlob, b: PackedBlob | undefined): boolean {
  return (
    b !== undefined &&
    a.id === b.id &&
    a.type === b.type &&
    a.offset === b.offset &&
    a.length === b.length &&
    a.plainLength === b.plainLength
  )
}
