/** Who may import whom, room by room. ARCHITECTURE.md shows this table, and `tidy.test.ts` holds every import against it. */
export const rooms = {
  base: [],
  change: ['base'],
  storage: ['base'],
  engines: ['base', 'change'],
  journal: ['base', 'change', 'storage'],
  files: ['base', 'change', 'storage'],
  vault: ['base', 'change', 'storage'],
  links: ['base', 'change', 'journal'],
  verify: ['base', 'change'],
  backup: ['base', 'change', 'storage', 'journal', 'files', 'vault', 'engines'],
  service: [
    'base',
    'change',
    'storage',
    'engines',
    'journal',
    'files',
    'vault',
    'links',
    'verify',
    'backup',
  ],
  cli: ['base', 'service', 'demo'],
  demo: ['base', 'service'],
} as const satisfies Readonly<Record<string, readonly string[]>>

export type Room = keyof typeof rooms

/** What else holds of a room's imports, for the reader of the table. */
export const notes: Partial<Readonly<Record<Room, string>>> = {
  engines: 'sibling engines never import each other',
  backup: 'of engines the interface only',
  service: 'the only room that imports an `all.ts`',
  demo: 'plays the command line as a user would: it starts it, and imports none of it',
}

export function isRoom(name: string): name is Room {
  return Object.hasOwn(rooms, name)
}

/** The table as Markdown. */
export function renderRooms(): string {
  const rows = Object.entries(rooms).map(([room, allowed]) => {
    const note = isRoom(room) && notes[room] ? ` (${notes[room]})` : ''
    return `| ${room} | ${allowed.length === 0 ? 'nothing' : allowed.join(', ')}${note} |`
  })
  return ['| room | may import |', '|-|-|', ...rows].join('\n')
}
