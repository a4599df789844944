// Compiles each AssemblyScript file of wasm/assembly/ to build/NAME.wasm. Plain JavaScript: it runs before
// anything else is built, as `npm run build` and from tools/install.sh.
import { mkdirSync, readdirSync, renameSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import asc from 'assemblyscript/asc'

const here = fileURLToPath(new URL('.', import.meta.url))
const build = fileURLToPath(new URL('../build/', import.meta.url))
mkdirSync(build, { recursive: true })

for (const file of readdirSync(`${here}assembly`).filter((name) => name.endsWith('.ts'))) {
  const name = file.slice(0, -'.ts'.length)
  // Written beside and renamed: somebody may be loading the old one.
  const draft = `${name}.${process.pid}.tmp`
  const { error } = await asc.main(
    [
      `assembly/${file}`,
      '--baseDir', here,
      '--outFile', `../build/${draft}`,
      '-O3',
      '--runtime', 'stub',
      '--noAssert',
      '--importMemory',
      '--memoryBase', '1024',
      '--enable', 'simd,relaxed-simd,bulk-memory',
    ],
    { stderr: process.stderr },
  )
  if (error) throw new Error(`compile wasm/assembly/${file}: ${error.message}`)
  renameSync(build + draft, `${build}${name}.wasm`)
}
