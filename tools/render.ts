import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { renderPages } from './pages.ts'

for (const { file, text } of renderPages()) {
  mkdirSync(path.dirname(file), { recursive: true })
  writeFileSync(file, text)
}
