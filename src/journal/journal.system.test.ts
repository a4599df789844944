import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { openJournal } from './journal.ts'

const trials = 6

/** Appends numbered blocks for ever and prints each position after it was synced. */
const writer = `
  import { openJournal } from ${JSON.stringify(new URL('./journal.ts', import.meta.url).href)}
  const signal = new AbortController().signal
  const journal = await openJournal(process.argv[1], { limitBytes: 1 << 30, signal })
  let n = Number(journal.durable()?.at ?? 0)
  for (;;) {
    const at = (k) => String(k).padStart(9, '0')
    const bytes = Buffer.alloc(1 + (n * 7919) % 50000, n)
    await journal.append({ kind: 'block', history: 'a', segment: 's', offset: 0, bytes,
      first: at(n), next: at(n + 1), commits: [], closes: false }, { signal })
    n += 1
    console.log(at(n))
  }
`

test('invariant 6: what durable() told before a kill -9 is there after it', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'redoubt-journal-'))
  let told = 0
  try {
    for (let trial = 0; trial < trials; trial++) {
      const child = spawn(process.execPath, ['--input-type=module', '--eval', writer, directory], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      const exit = once(child, 'exit')
      const killAt = told + 1 + ((trial * 37) % 60)
      for await (const line of createInterface(child.stdout)) {
        told = Number(line)
        if (told === killAt) child.kill('SIGKILL')
      }
      await exit
      const { signal } = new AbortController()
      await using journal = await openJournal(directory, { limitBytes: 1 << 30, signal })
      const held = Number(journal.durable()?.at)
      assert.ok(held >= told, `trial ${trial}: ${told} was acknowledged, ${held} is held`)
      let n = 0
      for await (const block of journal.read(undefined, { signal })) {
        assert.equal(Number(block.first), n)
        assert.ok(block.bytes.every((byte) => byte === n % 256))
        n += 1
        if (n === held) break
      }
      told = held
    }
    assert.ok(told > trials, `${told} blocks in all`)
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
})
