import { randomUUID } from 'node:crypto'
import { readFileSync, readlinkSync } from 'node:fs'

/** Who holds a lease, and what it can tell of those who held it before. */
export interface Holder {
  /** Written into the lease. */
  readonly text: string
  /** Whether the holder of that lease surely lives no more: then nobody need wait for the lease to end. */
  isDead(lease: { readonly holder: string; readonly nonce: string }): boolean
  begin(nonce: string): void
  end(nonce: string): void
}

/**
 * This process as a holder. Another process is known to be dead when it ran in the same boot of the same machine, in
 * the same space of process ids (a container has its own), and no process has its id and start time now.
 */
export class ProcessHolder implements Holder {
  readonly text: string
  readonly #machine: string | undefined
  readonly #live = new Set<string>()

  constructor() {
    this.#machine = readMachine()
    // Where nothing tells processes apart, the name is good for nothing but being unique.
    this.text = this.#machine
      ? `${this.#machine} ${process.pid} ${readStart(process.pid)}`
      : randomUUID()
  }

  isDead({ holder, nonce }: { readonly holder: string; readonly nonce: string }): boolean {
    if (holder === this.text) return !this.#live.has(nonce)
    const [machine, pid = '', started = ''] = holder.split(' ')
    if (this.#machine === undefined || machine !== this.#machine || !/^\d+$/.test(pid)) return false
    return readStart(Number(pid)) !== started
  }

  begin(nonce: string): void {
    this.#live.add(nonce)
  }

  end(nonce: string): void {
    this.#live.delete(nonce)
  }
}

/** The boot and the space of process ids: proc(5), pid_namespaces(7). Undefined where there is no such thing. */
function readMachine(): string | undefined {
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
    const space = readlinkSync('/proc/self/ns/pid').replaceAll(/\D/g, '')
    return `${boot}/${space}`
  } catch (error) {
    if (error instanceof Error && 'code' in error) return undefined
    throw error
  }
}

/** When a process started, in the kernel's ticks (proc(5), stat, field 22); undefined when there is none. */
function readStart(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
}
