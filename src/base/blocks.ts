/** Memory of WebAssembly, as one's own functions import it. */
export type WebMemory = { readonly buffer: ArrayBuffer }

/**
 * Work that one room wants done on bytes while another one has them at hand, on whatever thread that is. Passes between
 * threads as it is.
 */
export type Inspection = {
  /** URL of a module that exports `createInspector`: a `CreateInspector`. It is loaded at once: no top-level await. */
  readonly module: string
  /** Given to each call; a value that can be cloned. */
  readonly setup: unknown
}

/** Where the bytes will lie, and a part of that memory, `scratchBytes` from `scratchAt` on, that is the inspector's own. */
export type InspectorRoom = {
  readonly memory: WebMemory
  readonly scratchAt: number
  readonly scratchBytes: number
}
export type CreateInspector = (room: InspectorRoom) => Inspect

/** Looks at `sizeBytes` at `at` in the memory, which stand at `offset` in their file; answers with what can be cloned. */
export type Inspect = (at: number, sizeBytes: number, offset: number, setup: unknown) => unknown

export const inspectorScratchBytes = 32 * 1024

/** What the inspector said of each block, in the order of the file. */
export type Written = { readonly sizeBytes: number; readonly said: readonly unknown[] }

/** A file that is written from its beginning to its end and stored in blocks cut at fixed offsets. One caller at a time. */
export interface BlockWriter {
  /** Takes a copy of the bytes. With a promise it asks to be called no more until that is settled; it throws what failed. */
  write(bytes: Buffer): Promise<void> | undefined
  /** Says that these were all; resolves when they are on their way to the store, and rejects if that failed. */
  end(): Promise<Written>
}
