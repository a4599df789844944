import { parentPort, workerData } from 'node:worker_threads'
import { assert } from '#base/faults'
import { BlobOpener } from './blob-opener.ts'
import { EnvelopeCipher, type EnvelopeKeys } from './crypto.ts'
import { decodePack } from './pack.ts'
import { type PackOpener, provePack } from './pack-proof.ts'
import type { ProverAnswer, ProverRequest } from './pack-prover.ts'

// One thread of a prover: a pack comes, what is wrong with it goes back. Keys cross threads as plain byte arrays.

const port = parentPort
assert(port, 'this file runs as a worker thread')
const { encrypt, macK, macR } = workerData as EnvelopeKeys
const cipher = new EnvelopeCipher({
  encrypt: Buffer.from(encrypt),
  macK: Buffer.from(macK),
  macR: Buffer.from(macR),
})
const blobs = new BlobOpener(cipher)
const opener: PackOpener = {
  decodePack: (pack, bytes) => decodePack(cipher, bytes, `pack ${pack}`),
  viewBlob: (blob, envelope) => blobs.view(blob, envelope),
}

port.on('message', ({ pack, bytes }: ProverRequest) => {
  const answer: ProverAnswer = { damage: provePack(opener, pack, Buffer.from(bytes)) }
  port.postMessage(answer)
})
