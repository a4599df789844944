import { Worker } from 'node:worker_threads'
import { Fault } from '#base/faults'
import { Queue } from '#base/queue'
import type { TreeEvent, TreeSource } from '#change/tree'
import { EventReader } from './walk-codec.ts'
import { compileRules, type WalkRules } from './walk-rules.ts'
import type { WalkMessage, WalkTask } from './walk-worker.ts'

/** Batches that the walk may be ahead of who consumes it. */
const windowMax = 4

/**
 * Local paths as one tree, walked by a thread of its own, so that a file system which hangs stops no one else.
 * Reads the files of patterns at once and throws `usage` for what makes no sense; the walk throws `missing`
 * when none of the paths is there.
 */
export function createWalk(rules: WalkRules): TreeSource {
  compileRules(rules)
  const own = onlyRules(rules)
  return { walk: ({ signal }) => walk(own, signal) }
}

/** What goes to the thread: the caller's object may bear what cannot be cloned. */
function onlyRules(rules: WalkRules): WalkRules {
  return {
    paths: rules.paths,
    root: rules.root,
    excludes: rules.excludes,
    excludesNoCase: rules.excludesNoCase,
    excludeFiles: rules.excludeFiles,
    excludeFilesNoCase: rules.excludeFilesNoCase,
    excludeIfPresent: rules.excludeIfPresent,
    excludeCaches: rules.excludeCaches,
    excludeLargerThanBytes: rules.excludeLargerThanBytes,
    oneFileSystem: rules.oneFileSystem,
    sockets: rules.sockets,
    accessTimes: rules.accessTimes,
  } satisfies { readonly [K in keyof Required<WalkRules>]: WalkRules[K] }
}

async function* walk(rules: WalkRules, signal: AbortSignal): AsyncGenerator<TreeEvent, void, void> {
  signal.throwIfAborted()
  const consumed = new SharedArrayBuffer(4)
  const task: WalkTask = { rules, consumed, windowMax }
  const worker = new Worker(new URL('./walk-worker.ts', import.meta.url), {
    workerData: task,
    name: 'walk',
    // It makes much short-lived garbage, and a batch at a time of what lives.
    resourceLimits: { maxYoungGenerationSizeMb: 16 },
  })
  // Bounded by the window: the thread waits before it posts more.
  const batches = new Queue<ArrayBuffer>(windowMax + 1)
  const push = (bytes: ArrayBuffer) => {
    batches.push(bytes, 1).catch((error: unknown) => batches.end(error))
  }
  worker.on('message', (message: WalkMessage) => {
    if (message.kind === 'batch') push(message.bytes)
    else if (message.kind === 'end') batches.end()
    else batches.end(new Fault(message.code, message.message, { hint: message.hint }))
  })
  worker.on('error', (error) => batches.end(error))
  worker.on('exit', (code) => batches.end(new Error(`the walking thread ended with ${code}`)))
  const abort = () => batches.end(signal.reason)
  signal.addEventListener('abort', abort, { once: true })
  const reader = new EventReader()
  const counter = new Int32Array(consumed)
  try {
    for await (const bytes of batches) {
      signal.throwIfAborted()
      yield* reader.read(bytes)
      Atomics.add(counter, 0, 1)
      Atomics.notify(counter, 0)
    }
  } finally {
    signal.removeEventListener('abort', abort)
    await worker.terminate()
  }
}
