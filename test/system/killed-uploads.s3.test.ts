import assert from 'node:assert/strict'
import { test } from 'node:test'
import { killUploads, uploadKills } from '../support/multipart-kills.ts'

test('an archiver that dies within an upload in parts leaves a whole object or none, and the next one makes it', async () => {
  const names = ['part 2 middle', 'complete after']
  const kills = uploadKills.filter(({ request, moment }) => names.includes(`${request} ${moment}`))
  assert.equal(kills.length, names.length)
  assert.equal(await killUploads(kills), kills.length)
})
