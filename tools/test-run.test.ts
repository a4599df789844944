import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { test } from 'node:test'
import { runTestFiles } from './test-run.ts'

const { NODE_TEST_CONTEXT: _, ...env } = process.env

test('a file that hangs outside of its tests is killed and named, and fails the run', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'test-run-'))
  try {
    const file = path.join(folder, 'hangs.test.mjs')
    writeFileSync(file, 'for (;;);')
    const said: string[] = []
    const args = ['--test-reporter=spec', `--test-reporter-destination=${folder}/report`, file]
    const passed = await runTestFiles({
      args,
      env,
      fileLimitMs: 1500,
      say: (line) => said.push(line),
    })
    assert.equal(passed, false)
    assert.deepEqual(said, [`${file}: still running after 2 s: ended`])
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('files that pass, pass', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'test-run-'))
  try {
    const file = path.join(folder, 'fine.test.mjs')
    writeFileSync(file, `import { test } from 'node:test'\ntest('fine', () => {})`)
    const args = ['--test-reporter=spec', `--test-reporter-destination=${folder}/report`, file]
    assert.equal(await runTestFiles({ args, env, fileLimitMs: 600_000, say: assert.fail }), true)
  } finally {
    rmSync(folder, { recursive: true })
  }
})
