import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { formatManifest, type Manifest, parseManifest } from './manifest.ts'

const manifest: Manifest = {
  version: 2,
  systemId: '7710604786102834134',
  files: [
    {
      path: 'backup_label',
      sizeBytes: 227,
      modified: '2026-11-21 13:00:00 GMT',
      algorithm: 'SHA256',
      checksum: 'ab',
    },
    {
      path: 'odd "name" 🛒',
      sizeBytes: 0,
      modified: '2026-11-21 13:00:00 GMT',
      algorithm: undefined,
      checksum: undefined,
    },
  ],
  walRanges: [{ timeline: 1, start: '0/2000028', end: '0/2000120' }],
}

test('a manifest survives writing and reading; the system identifier keeps all its digits', () => {
  assert.deepEqual(parseManifest(formatManifest(manifest)), manifest)
})

test('every changed byte of a manifest is found', () => {
  const bytes = formatManifest(manifest)
  // The last bytes are the brace and the line's end behind the checksum.
  for (let at = 0; at < bytes.length - 2; at += 1) {
    const changed = Buffer.from(bytes)
    changed[at] = (changed[at] ?? 0) ^ 0x02
    assert.throws(
      () => parseManifest(changed),
      (error) => isFault(error, 'corrupt'),
      `byte ${at}`,
    )
  }
})
