// A record of a blob, in memory and on disk: twelve 32-bit words.

export const recordWords = 12
export const recordBytes = recordWords * 4

/** The id comes first. */
export const idWordCount = 8

/** Then the number of the pack, with this bit for trees; offset, length, unpacked length. */
export const packWord = 8
export const treeBit = 0x8000_0000
