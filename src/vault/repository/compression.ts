import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { Fault } from '#base/faults'

/** How hard data is compressed: the names are restic's. */
export const compressionModes = ['off', 'fastest', 'auto', 'better', 'max'] as const
export type CompressionMode = (typeof compressionModes)[number]

// The zstd levels that come nearest to what restic's encoder reaches under these names.
export const compressionLevels: Readonly<Record<CompressionMode, number>> = {
  off: 3,
  fastest: 1,
  auto: 3,
  better: 7,
  max: 11,
}

/**
 * The level for blocks, which are a database's pages: the finer search finds nothing more in them (on pgbench's, the
 * lowest level packs 2 % better than level 3 in half of its time).
 */
export function blockLevel(mode: CompressionMode): number {
  return mode === 'auto' ? compressionLevels.fastest : compressionLevels[mode]
}

/** A zstd frame of `plain`, its size in the header, with no checksum: the envelope bears the proof. */
export function compress(plain: Uint8Array, mode: CompressionMode): Buffer {
  return zstdCompressSync(plain, {
    params: { [constants.ZSTD_c_compressionLevel]: compressionLevels[mode] },
    pledgedSrcSize: plain.length,
    chunkSize: Math.max(1024, plain.length + (plain.length >>> 8) + 64),
  })
}

const pieceBytesMax = 16 * 1024 * 1024

/**
 * Unpacks to at most `plainBytesMax` bytes. `guessBytes` is the size of the pieces of output: joining many
 * small ones costs more than the unpacking.
 */
export function decompressLimited(
  packed: Uint8Array,
  plainBytesMax: number,
  what: string,
  guessBytes = 4096 + packed.length * 4,
): Buffer {
  try {
    return zstdDecompressSync(packed, {
      maxOutputLength: Math.max(1, plainBytesMax),
      chunkSize: Math.min(Math.max(1024, guessBytes), pieceBytesMax),
    })
  } catch (cause) {
    throw new Fault('corrupt', `unpack ${what}: no zstd frame of at most ${plainBytesMax} bytes`, {
      cause,
    })
  }
}
