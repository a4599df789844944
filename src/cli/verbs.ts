import { backupVerb } from './backup.ts'
import { demoVerb } from './demo.ts'
import { inspectVerb } from './inspect.ts'
import { migrateVerb } from './migrate.ts'
import { protectVerb } from './protect.ts'
import { restoreVerb } from './restore.ts'
import { vaultGroup } from './vault.ts'
import type { Verb, VerbGroup } from './verb.ts'
import { verifyVerb } from './verify.ts'
import { versionVerb } from './version.ts'
import { windowVerb } from './window.ts'

/** The whole surface, in the order of the help page. `wal-fetch` is apart: see main.ts. */
export const verbs: readonly (Verb | VerbGroup)[] = [
  demoVerb,
  inspectVerb,
  migrateVerb,
  verifyVerb,
  protectVerb,
  backupVerb,
  windowVerb,
  restoreVerb,
  vaultGroup,
  versionVerb,
]
