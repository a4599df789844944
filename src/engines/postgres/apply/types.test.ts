import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fits, samenessOf } from './types.ts'

test('fits: a type takes all values of another or is refused', () => {
  const taken = [
    ['integer', 'integer'],
    ['integer', 'bigint'],
    ['smallint', 'numeric'],
    ['numeric(12,2)', 'numeric'],
    ['numeric(12,2)', 'numeric(14,4)'],
    ['character varying(9)', 'character varying(5)'],
    ['text', 'public.citext'],
    ['timestamp(3) without time zone', 'timestamp without time zone'],
    ['timestamp(3) without time zone', 'timestamp(6) without time zone'],
    ['interval', 'interval day to second(3)'],
    ['character', 'bpchar'],
    ['public.mood', 'shop.mood'],
    ['public._mood', 'public.mood[]'],
    ['public.vector', 'public.vector(3)'],
    ['json', 'jsonb'],
    ['uuid', 'text'],
    ['integer[]', 'integer[]'],
    ['pg_catalog.varchar', 'character varying(5)'],
    ['pg_catalog.numeric', 'numeric(12,2)'],
    ['pg_catalog.int4', 'bigint'],
    ['pg_catalog._int4', 'integer[]'],
    ['pg_catalog."char"', '"char"'],
  ] as const
  for (const [source, target] of taken) assert.ok(fits(source, target), `${source} to ${target}`)
  const refused = [
    ['bigint', 'integer'],
    ['integer', 'numeric(5,0)'],
    ['numeric', 'numeric(12,2)'],
    ['numeric(12,4)', 'numeric(14,2)'],
    ['timestamp without time zone', 'timestamp(0) without time zone'],
    ['timestamp without time zone', 'timestamp with time zone'],
    ['timestamp with time zone', 'date'],
    ['double precision', 'real'],
    ['public.mood', 'public.other'],
    ['jsonb', 'json'],
    ['integer[]', 'integer'],
    ['pg_catalog.int8', 'integer'],
    ['pg_catalog.timestamptz', 'date'],
  ] as const
  for (const [source, target] of refused) assert.ok(!fits(source, target), `${source} to ${target}`)
})

test('samenessOf: what compares by more than its text is unknown', () => {
  const of = (name: string, kind = 'b', schema = 'pg_catalog') => samenessOf({ schema, name, kind })
  assert.equal(of('int8'), 'bytes')
  assert.equal(of('bpchar'), 'blanks')
  assert.equal(of('numeric'), 'number')
  assert.equal(of('float8'), 'zero')
  assert.equal(of('interval'), 'unknown')
  assert.equal(of('jsonb'), 'unknown')
  assert.equal(of('text', 'b', 'public'), 'unknown')
  assert.equal(of('mood', 'e', 'public'), 'bytes')
  const element = { schema: 'pg_catalog', name: 'int4', kind: 'b' }
  assert.equal(samenessOf({ schema: 'pg_catalog', name: '_int4', kind: 'b', element }), 'bytes')
  const other = { schema: 'pg_catalog', name: 'numeric', kind: 'b' }
  assert.equal(
    samenessOf({ schema: 'pg_catalog', name: '_numeric', kind: 'b', element: other }),
    'unknown',
  )
})
