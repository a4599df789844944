import { readFileSync } from 'node:fs'
import type { WebMemory } from './blocks.ts'
import { Fault } from './faults.ts'

// The part of the WebAssembly interface that is used here; node's own types leave it to the DOM's.
declare const WebAssembly: {
  Module: new (bytes: Uint8Array) => object
  Memory: new (size: { initial: number; maximum: number }) => WebMemory
  Instance: new (module: object, imports: object) => { readonly exports: unknown }
}

/** The modules below `wasm/`; their bytes come from `npm run build`. */
export type WasmName = 'kernels' | 'pages' | 'rows'

const compiled = new Map<WasmName, object>()

/** A memory of so many pages of 64 KiB, which never moves. */
export function createWebMemory(pages: number): WebMemory {
  return new WebAssembly.Memory({ initial: pages, maximum: pages })
}

/** The functions of a module that works on `memory`; compiled once a thread. */
export function loadWasm(name: WasmName, memory: WebMemory): unknown {
  return new WebAssembly.Instance(compile(name), { env: { memory } }).exports
}

function compile(name: WasmName): object {
  const known = compiled.get(name)
  if (known) return known
  const file = new URL(`../../build/${name}.wasm`, import.meta.url)
  try {
    const made = new WebAssembly.Module(readFileSync(file))
    compiled.set(name, made)
    return made
  } catch (cause) {
    throw new Fault('io', `load ${file.pathname}: not built or damaged`, {
      cause,
      hint: 'Run `npm run build`, or start Redoubt through its launcher, which does.',
    })
  }
}
