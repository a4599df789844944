const exitTrouble = 126
const exitUsage = 126

/**
 * What PostgreSQL's restore_command calls: `wal-fetch --socket S %f %p`. Exit 0: the file is there; 1: the archive has
 * none of that name; above 125: trouble, and recovery must not end. Loads next to nothing: it runs once a segment.
 */
export async function walFetch(argv: readonly string[]): Promise<number> {
  const [flag, socket, name, destination] = argv
  if (flag !== '--socket' || !socket || !name || !destination) {
    process.stderr.write('redoubt wal-fetch: usage: wal-fetch --socket SOCKET NAME DESTINATION\n')
    return exitUsage
  }
  try {
    const { fetchWal } = await import('#service/wal-fetch')
    return await fetchWal(socket, name, destination)
  } catch (error) {
    process.stderr.write(
      `redoubt wal-fetch: ${error instanceof Error ? error.message : String(error)}\n`,
    )
    return exitTrouble
  }
}
