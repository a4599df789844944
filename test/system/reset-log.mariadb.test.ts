import { test } from 'node:test'
import { resetTrial } from '../support/reset-trial.ts'
import { startMariadb } from '../support/servers/mariadb.ts'

for (const how of ['running', 'stopped'] as const) {
  test(`a reset of the binary log while protection is ${how} is a gap, and a new base goes on behind it`, () =>
    resetTrial(startMariadb, how))
}
