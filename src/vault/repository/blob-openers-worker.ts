import { writeSync } from 'node:fs'
import { parentPort, workerData } from 'node:worker_threads'
import { assert, isFault } from '#base/faults'
import { withoutZeroEnds } from '#base/zeroes'
import { BlobOpener } from './blob-opener.ts'
import type { AskedBlob, OpenAnswer, OpenRequest, WriteFailure } from './blob-openers.ts'
import { EnvelopeCipher, type EnvelopeKeys } from './crypto.ts'

// One thread that opens envelopes, and writes what is in them where it is told to. Keys cross threads as plain byte arrays.

const port = parentPort
assert(port, 'this file runs as a worker thread')
const { encrypt, macK, macR } = workerData as EnvelopeKeys
const cipher = new EnvelopeCipher({
  encrypt: Buffer.from(encrypt),
  macK: Buffer.from(macK),
  macR: Buffer.from(macR),
})
const opener = new BlobOpener(cipher)

function answer({ slot, envelopes, blobs, plain }: OpenRequest): OpenAnswer {
  const sizes: (number | undefined)[] = []
  for (const [index, asked] of blobs.entries()) {
    const bytes = open(asked, Buffer.from(envelopes, asked.at, asked.length), plain)
    sizes.push(bytes?.length)
    const failure = bytes && write(bytes, index, asked.places)
    if (failure) return { slot, sizes, failure }
  }
  return { slot, sizes, failure: undefined }
}

function open(
  blob: AskedBlob,
  envelope: Buffer,
  plain: SharedArrayBuffer | undefined,
): Buffer | undefined {
  try {
    return plain ? opener.openInto(blob, envelope, Buffer.from(plain)) : opener.view(blob, envelope)
  } catch (error) {
    // Whoever asked looks for another copy of the blob, and says what is wrong if there is none.
    if (isFault(error, 'corrupt')) return undefined
    throw error
  }
}

function write(bytes: Buffer, blob: number, places: AskedBlob['places']): WriteFailure | undefined {
  if (places.length === 0) return undefined
  const { start, end } = withoutZeroEnds(bytes)
  for (const [place, { descriptor, offset }] of places.entries()) {
    try {
      for (let at = start; at < end; ) {
        at += writeSync(descriptor, bytes, at, end - at, offset + at)
      }
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException
      if (code === undefined) throw error
      return { blob, place, code, message }
    }
  }
  return undefined
}

port.on('message', (request: OpenRequest) => port.postMessage(answer(request)))
