import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Fault, isFault } from '#base/faults'
import { LinkWorld } from '../../test/support/link-world.ts'

const gone = () => new Fault('unreachable', 'ask the server: it does not answer')

test('trouble that does not end is given up, in bounded time', async () => {
  using world = new LinkWorld()
  for (let call = 8; call < 2000; call++) world.targetLife.failures.set(call, gone())
  await assert.rejects(world.migrate(), (error) => isFault(error, 'unreachable'))
  assert.ok(world.time.sleptMs > 1000 && world.time.sleptMs < 120_000, `${world.time.sleptMs}`)
  assert.ok(world.targetLife.calls < 100, `${world.targetLife.calls}`)
})

test('rows that a target loses in silence stop the link, and no mark tells otherwise', async () => {
  using world = new LinkWorld()
  world.target.swallows = 'order 7'
  await assert.rejects(
    world.migrate(),
    (error) => isFault(error, 'different') && /3 rows were read .* 2 are/.test(error.message),
  )
  world.target.swallows = undefined
  await world.migrate(true)
  assert.deepEqual(world.target.rowsOf('shop.orders'), world.source.rowsOf('shop.orders'))
})

test('a mark that comes late, of a session of the process before, is believed', async () => {
  using world = new LinkWorld()
  const { done } = world.target
  // Two movers of one link cannot be (the state is locked), but what the first one sent may still arrive.
  let late = false
  const connect = world.target.connect.bind(world.target)
  world.target.connect = (life) => {
    const end = connect(life)
    const rows = end.rows ?? assert.fail('rows')
    const open = rows.openCopy.bind(rows)
    rows.openCopy = async (options) => {
      const writer = await open(options)
      const load = writer.load.bind(writer)
      writer.load = async (table, chunk, blocks, more) => {
        if (chunk.index === 2 && !late) {
          late = true
          await load(table, chunk, blocks, more)
          throw new Fault('conflict', 'load: it is marked')
        }
        return load(table, chunk, blocks, more)
      }
      return writer
    }
    return end
  }
  await world.migrate()
  assert.equal(done.filter((line) => line === 'load shop.orders 2').length, 1)
  assert.deepEqual(world.target.rowsOf('shop.orders'), world.source.rowsOf('shop.orders'))
})

test('the progress ends where everything is', async () => {
  using world = new LinkWorld()
  await world.migrate()
  const { doneBytes, doneItems, totalItems } = world.progress
  assert.equal(doneItems, totalItems)
  assert.ok(doneBytes > 0)
})
