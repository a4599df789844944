import { parentPort, workerData } from 'node:worker_threads'
import { assert, Fault } from '#base/faults'
import { loadNative } from './native.ts'
import { scan } from './scan.ts'
import { EventWriter } from './walk-codec.ts'
import { compileRules, type WalkRules } from './walk-rules.ts'

/** What the walking thread is started with. */
export type WalkTask = {
  readonly rules: WalkRules
  /** One counter: batches that were consumed. The walk stays at most `windowMax` ahead of it. */
  readonly consumed: SharedArrayBuffer
  readonly windowMax: number
}

/** What it posts. */
export type WalkMessage =
  | { readonly kind: 'batch'; readonly bytes: ArrayBuffer }
  | { readonly kind: 'end' }
  | {
      readonly kind: 'fault'
      readonly code: Fault['code']
      readonly message: string
      readonly hint?: string | undefined
    }

const batchEventsMax = 512
const batchBytesMax = 512 * 1024

function run(task: WalkTask): void {
  const post = (message: WalkMessage, transfer: ArrayBuffer[] = []) =>
    parentPort?.postMessage(message, transfer)
  const consumed = new Int32Array(task.consumed)
  const writer = new EventWriter()
  let posted = 0
  const flush = () => {
    for (let done = Atomics.load(consumed, 0); posted - done >= task.windowMax; ) {
      Atomics.wait(consumed, 0, done)
      done = Atomics.load(consumed, 0)
    }
    const bytes = writer.take()
    post({ kind: 'batch', bytes }, [bytes])
    posted += 1
  }
  try {
    for (const event of scan(compileRules(task.rules), loadNative())) {
      writer.add(event)
      // The first batch is small, so that work can begin at once.
      const eventsMax = posted === 0 ? 32 : batchEventsMax
      if (writer.count >= eventsMax || writer.sizeBytes >= batchBytesMax) flush()
    }
    if (writer.count > 0) flush()
    post({ kind: 'end' })
  } catch (error) {
    if (!(error instanceof Fault)) throw error
    post({ kind: 'fault', code: error.code, message: error.message, hint: error.hint })
  }
}

assert(parentPort, 'the walk runs in a worker thread')
run(workerData as WalkTask)
