import { readFileSync } from 'node:fs'
import { renderErrors } from './errors.ts'
import { renderRooms } from './rooms.ts'

const begin = '<!-- rooms: rendered from tools/rooms.ts by `npm run render` -->'
const end = '<!-- /rooms -->'

/** Pages that are rendered from tables in the code, and what they must hold. */
export function renderPages(): { readonly file: string; readonly text: string }[] {
  return [
    { file: 'docs/operations/errors.md', text: renderErrors() },
    { file: 'ARCHITECTURE.md', text: withRooms(readFileSync('ARCHITECTURE.md', 'utf8')) },
  ]
}

function withRooms(page: string): string {
  const from = page.indexOf(begin)
  const to = page.indexOf(end)
  if (from < 0 || to < from) throw new Error(`ARCHITECTURE.md has lost its line ${begin}`)
  return `${page.slice(0, from)}${begin}\n\n${renderRooms()}\n\n${page.slice(to)}`
}
