import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { test } from 'node:test'
import { isFault } from '#base/faults'
import { openStorage } from './all.ts'
import { parseS3Url } from './s3/place.ts'
import { rejects } from './storage.suite.ts'

const folder = mkdtempSync(join(tmpdir(), 'redoubt-all-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

test('openStorage() takes a path, a file URL and mem:', async () => {
  const path = join(folder, 'with space+ü%41')
  await using first = await openStorage(path, { create: true })
  await first.put('a/b', Buffer.from('x'))
  for (const url of [pathToFileURL(path).href, `${path}/`]) {
    await using again = await openStorage(url)
    assert.equal((await again.get('a/b')).toString(), 'x')
    assert.equal(again.url, pathToFileURL(path).href)
  }
  await using memory = await openStorage('mem:')
  assert.deepEqual(await Array.fromAsync(memory.list('')), [])
})

test('openStorage() makes no folder unless told, and takes no file for one', async () => {
  await rejects(openStorage(join(folder, 'none')), 'missing')
  await rejects(openStorage(join(folder, 'none', 'below')), 'missing')
  assert.ok(!readdirSync(folder).includes('none'))
  writeFileSync(join(folder, 'file'), '')
  await assert.rejects(openStorage(join(folder, 'file')), isFault)
  await assert.rejects(openStorage(join(folder, 'file'), { create: true }), isFault)
})

test('a URL that makes no sense is a usage fault that names it', async () => {
  const bad: readonly (readonly [string, string])[] = [
    ['', 'no URL'],
    ['ftp://host/path', 'unknown scheme'],
    ['S4://bucket', 'unknown scheme'],
    ['file://host/path', 'file://host/path'],
    ['file:relative', 'file:relative'],
    ['file:///a?b=c', 'file:///a?b=c'],
    ['s3://', 's3://bucket/prefix'],
    ['s3:bucket', 's3://bucket/prefix'],
    ['s3:///prefix', 's3://bucket/prefix'],
    ['s3://b!/x', 's3://bucket/prefix'],
    ['s3://bucket/?endpoit=http://x', '"endpoit"'],
    ['s3://bucket/?endpoint=host:9000', '"host:9000"'],
    ['s3://bucket/?endpoint=ftp://host', '"ftp://host"'],
    ['s3://bucket/a/../b%2F..%2Fc', 'the prefix'],
    ['s3://bucket/%zz', '%zz'],
    ['s3://bucket/?path-style=maybe', 'path-style=maybe'],
    ['s3://bucket/?sse=rot13', 'sse=rot13'],
    ['s3://bucket/?sse-kms-key-id=k', 'sse=aws:kms'],
    ['s3://bucket/?lock-mode=soft', 'lock-mode=soft'],
    ['s3://bucket/?part-size=1MiB', 'part-size=1MiB'],
    ['s3://bucket/?part-size=1TiB', 'part-size=1TiB'],
  ]
  for (const [url, names] of bad) {
    await assert.rejects(openStorage(url), (error) => {
      assert.ok(isFault(error, 'usage'), `${url}: ${String(error)}`)
      assert.ok(error.message.includes(names), error.message)
      return true
    })
  }
})

test('a secret in a URL is refused and not repeated', async () => {
  const urls = [
    's3://KEY:hunter2@bucket/x',
    's3://KEY:hunter2@b!/x',
    's3://bucket/?endpoint=http://KEY:hunter2@host',
    'ftp://me:hunter2@host/',
  ]
  for (const url of urls) {
    await assert.rejects(openStorage(url), (error) => {
      assert.ok(isFault(error, 'usage'))
      assert.ok(!`${error.message} ${error.hint}`.includes('hunter2'), error.message)
      return true
    })
  }
})

test('parseS3Url() reads every option', () => {
  const base = parseS3Url('s3://My.bucket-1')
  assert.deepEqual([base.bucket, base.prefix, base.pathStyle], ['My.bucket-1', '', undefined])
  const full = parseS3Url(
    's3://bucket//a/b%20c//?endpoint=https://s3.example.net:9000&region=eu-1&storage-class=COLD' +
      '&sse=aws:kms&sse-kms-key-id=k&profile=p&lock-mode=governance&part-size=8MiB',
  )
  assert.deepEqual(
    { ...full, url: '' },
    {
      url: '',
      name: 's3://bucket/a/b c/',
      bucket: 'bucket',
      prefix: 'a/b c/',
      endpoint: 'https://s3.example.net:9000',
      region: 'eu-1',
      pathStyle: undefined,
      profile: 'p',
      storageClass: 'COLD',
      sse: 'aws:kms',
      sseKmsKeyId: 'k',
      lockMode: 'GOVERNANCE',
      partBytes: 8 * 1024 * 1024,
    },
  )
  for (const [text, wanted] of [
    ['0', false],
    ['1', true],
  ] as const) {
    assert.equal(parseS3Url(`s3://bucket/?path-style=${text}`).pathStyle, wanted)
  }
})
