/** Loaded by `redoubt wal-fetch` alone: keep it free of other imports. */
export { fetchWal } from '#engines/wal-fetch'
