/** What a long operation reports of itself: totals grow as they become known; a display samples them. */
export type Progress = {
  /** The phase in a few words: `copy rows`. */
  phase: string
  doneBytes: number
  totalBytes?: number | undefined
  doneItems: number
  totalItems?: number | undefined
  /** What is being worked on now. */
  current?: string | undefined
}

export function createProgress(phase: string): Progress {
  return { phase, doneBytes: 0, doneItems: 0 }
}
