import { parentPort, workerData } from 'node:worker_threads'
import { assert, isFault } from '#base/faults'
import { BlobOpener } from './blob-opener.ts'
import type { OpenAnswer, OpenRequest } from './blob-openers.ts'
import { EnvelopeCipher, type EnvelopeKeys } from './crypto.ts'

// One thread that opens envelopes. Keys cross threads as plain byte arrays.

const port = parentPort
assert(port, 'this file runs as a worker thread')
const { encrypt, macK, macR } = workerData as EnvelopeKeys
const cipher = new EnvelopeCipher({
  encrypt: Buffer.from(encrypt),
  macK: Buffer.from(macK),
  macR: Buffer.from(macR),
})
const opener = new BlobOpener(cipher)

function open({ blob, envelope, envelopeBytes, plain }: OpenRequest): number | undefined {
  try {
    return opener.openInto(blob, Buffer.from(envelope, 0, envelopeBytes), Buffer.from(plain)).length
  } catch (error) {
    // Whoever asked looks for another copy of the blob, and says what is wrong if there is none.
    if (isFault(error, 'corrupt')) return undefined
    throw error
  }
}

port.on('message', (request: OpenRequest) => {
  const answer: OpenAnswer = { slot: request.slot, sizeBytes: open(request) }
  port.postMessage(answer)
})
