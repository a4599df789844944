import { Fault } from '#base/faults'
import type { Taken } from './base-stream.ts'
import { wholePath } from './incremental.ts'
import type { Manifest, ManifestFile } from './manifest.ts'
import { type Crc32c, formatCrc32c } from './page-sums.ts'

/** Compares what came with what the server says it sent: the first file that differs is a `corrupt` Fault. */
export function compareTaken(manifest: Manifest, taken: ReadonlyMap<string, Taken>): void {
  for (const file of manifest.files) {
    const came = taken.get(file.path)
    if (!came) throw new Fault('corrupt', `check the base: '${file.path}' did not come`)
    if (came.sizeBytes !== file.sizeBytes) {
      throw new Fault(
        'corrupt',
        `check the base: '${file.path}' has ${came.sizeBytes} bytes, its manifest says ${file.sizeBytes}`,
      )
    }
    if (file.checksum !== undefined && file.checksum !== came.sum) {
      throw new Fault(
        'corrupt',
        `check the base: '${file.path}' has another checksum than its manifest says`,
      )
    }
  }
}

/** What of an incremental backup is stored otherwise than it came. */
export type Rewritten = {
  /** Whole files that were made of the parent's and a patch, by path. */
  readonly patched: ReadonlyMap<string, { readonly sizeBytes: number }>
  /** The label as stored. */
  readonly label: Buffer | undefined
  readonly crc: Crc32c
}

/**
 * The manifest of the whole backup that an incremental one was turned into. A patched file has no checksum there: nobody
 * has read it whole. The vault's own hashes cover it.
 */
export function wholeManifest(manifest: Manifest, rewritten: Rewritten): Manifest {
  return { ...manifest, files: manifest.files.map((file) => wholeFile(file, rewritten)) }
}

function wholeFile(file: ManifestFile, { patched, label, crc }: Rewritten): ManifestFile {
  const path = wholePath(file.path)
  const whole = path === undefined ? undefined : patched.get(path)
  if (path !== undefined && whole) {
    return { path, sizeBytes: whole.sizeBytes, modified: file.modified }
  }
  if (file.path !== 'backup_label' || !label) return file
  const checksum = formatCrc32c(crc.extend(0, label))
  return { ...file, sizeBytes: label.length, algorithm: 'CRC32C', checksum }
}
