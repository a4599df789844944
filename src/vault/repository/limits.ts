/** Sizes of the format and bounds of this implementation. Formats: docs/formats/repository.md. */

export const chunkBytesMin = 512 * 1024
export const chunkBytesMax = 8 * 1024 * 1024
/** A cut is where the low bits of the fingerprint are zero: one in 2^20 positions. */
export const chunkMask = 2 ** 20 - 1

/** Files that are written in place, such as a database's, are cut at multiples of this size. */
export const blockBytes = 1024 * 1024

/** An open pack is closed once it holds this much. */
export const packBytesTarget = 16 * 1024 * 1024
/**
 * Or this many: a pack of tiny blobs would list a quarter of a million, and whoever reads its header or its part of
 * the index would need the memory for all of them at once.
 */
export const packBlobsTarget = 16_384
/** A pack of one empty blob, header and all: nothing shorter is a pack. */
export const packBytesMin = 73
/** Offsets and lengths inside a pack are stored in 32 bits. */
export const packBytesMax = 2 ** 32 - 1
export const packHeaderBytesMax = 16 * 1024 * 1024

/** What one blob may unpack to: far above any chunk, room for a tree of a million nodes. */
export const blobBytesMax = 1024 * 1024 * 1024

/** Stored and unpacked size of an index, snapshot, lock or key file. */
export const fileBytesMax = 128 * 1024 * 1024
export const jsonBytesMax = 256 * 1024 * 1024

/**
 * A new index file is begun at so many blobs, or when the open one is this old: packs that no index lists yet when a
 * backup is killed are stored again by the next one.
 */
export const indexFileBlobsMax = 50_000
export const indexFileAgeMaxMs = 60_000

/** Blobs whose places are kept in memory; more go to a sorted file beside it. */
export const indexMemoryBlobsMax = 4_000_000

/** Keys that are tried with one password: each costs a fraction of a second. */
export const keysTriedMax = 20

/** Bounds for the cost of a foreign key file, so that a forged one cannot eat the machine. */
export const scryptMemoryBytesMax = 1024 * 1024 * 1024
