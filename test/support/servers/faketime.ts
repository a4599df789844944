import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { service } from './services.ts'

/** A clock that processes started with `env` go by, and that can be set while they run. */
export type FakeClock = Disposable & {
  readonly env: Readonly<Record<string, string>>
  /** Sets it so many seconds before or after the true time. */
  step(aheadSeconds: number): void
}

/** A clock that follows the true one until it is told otherwise. Timers go on as they did: only the time of day steps. */
export async function startFakeClock(file: string): Promise<FakeClock> {
  const { root } = await service('faketime')
  const machine = process.arch === 'arm64' ? 'aarch64' : 'x86_64'
  const step = (aheadSeconds: number) => {
    const sign = aheadSeconds < 0 ? '-' : '+'
    writeFileSync(file, `${sign}${Math.abs(aheadSeconds)}\n`, { mode: 0o644 })
  }
  step(0)
  const env = {
    LD_PRELOAD: `${root}/usr/lib/${machine}-linux-gnu/faketime/libfaketimeMT.so.1`,
    FAKETIME_TIMESTAMP_FILE: file,
    FAKETIME_NO_CACHE: '1',
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
    DONT_FAKE_MONOTONIC: '1',
  }
  return { env, step, [Symbol.dispose]: removeMemories }
}

/** What the library leaves of processes that are no more. */
function removeMemories(): void {
  for (const name of readdirSync('/dev/shm')) {
    const pid = /^(?:sem\.)?faketime_(?:sem|shm)_(\d+)$/.exec(name)?.[1]
    if (pid !== undefined && !existsSync(`/proc/${pid}`))
      rmSync(`/dev/shm/${name}`, { force: true })
  }
}
