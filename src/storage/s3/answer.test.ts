import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Code, Fault, type Recovery } from '#base/faults'
import { fromS3 } from './answer.ts'

type Facts = { readonly name?: string; readonly status?: number; readonly code?: string }

/** An error as the client throws it. */
function thrown({ name = 'Error', status, code }: Facts): Error {
  const metadata = status === undefined ? {} : { $metadata: { httpStatusCode: status } }
  return Object.assign(new Error('of the store'), { name, ...metadata, ...(code ? { code } : {}) })
}

test('fromS3() classifies every kind of answer', () => {
  const cases: readonly (readonly [Facts, Code, Recovery])[] = [
    [{ name: 'NoSuchKey', status: 404 }, 'missing', 'stop'],
    [{ name: 'NotFound', status: 404 }, 'missing', 'stop'],
    [{ name: 'NoSuchBucket', status: 404 }, 'missing', 'stop'],
    [{ name: 'AccessDenied', status: 403 }, 'denied', 'stop'],
    [{ name: 'Unknown', status: 403 }, 'denied', 'stop'],
    [{ name: 'SignatureDoesNotMatch', status: 403 }, 'denied', 'stop'],
    [{ name: 'RequestTimeTooSkewed', status: 403 }, 'denied', 'retry'],
    [{ name: 'ExpiredToken', status: 400 }, 'denied', 'stop'],
    [{ name: 'CredentialsProviderError' }, 'denied', 'stop'],
    [{ name: 'QuotaExceeded', status: 403 }, 'full', 'retry'],
    [{ name: 'Unknown', status: 507 }, 'full', 'retry'],
    [{ name: 'PreconditionFailed', status: 412 }, 'exists', 'stop'],
    [{ name: 'ConditionalRequestConflict', status: 409 }, 'conflict', 'retry'],
    [{ name: 'SlowDown', status: 503 }, 'throttled', 'retry'],
    [{ name: 'Unknown', status: 429 }, 'throttled', 'retry'],
    [{ name: 'InternalError', status: 500 }, 'unreachable', 'retry'],
    [{ name: 'Unknown', status: 502 }, 'unreachable', 'retry'],
    [{ name: 'XAmzContentSHA256Mismatch', status: 400 }, 'unreachable', 'retry'],
    [{ name: 'RequestTimeout', status: 400 }, 'timeout', 'retry'],
    [{ name: 'TimeoutError' }, 'timeout', 'retry'],
    [{ name: 'TimeoutError', code: 'ECONNRESET' }, 'unreachable', 'retry'],
    [{ name: 'TimeoutError', code: 'EPIPE' }, 'unreachable', 'retry'],
    [{ code: 'ECONNREFUSED' }, 'unreachable', 'retry'],
    [{ code: 'ENOTFOUND' }, 'unreachable', 'retry'],
    [{ code: 'HPE_INVALID_CONSTANT' }, 'unreachable', 'retry'],
    [{ code: 'DEPTH_ZERO_SELF_SIGNED_CERT' }, 'unreachable', 'stop'],
    [{ code: 'ERR_TLS_CERT_ALTNAME_INVALID' }, 'unreachable', 'stop'],
    [{ name: 'SyntaxError', status: 200 }, 'unreachable', 'retry'],
    [{ name: 'PermanentRedirect', status: 301 }, 'usage', 'stop'],
    [{ name: 'AuthorizationHeaderMalformed', status: 400 }, 'usage', 'stop'],
    [{ name: 'InvalidStorageClass', status: 400 }, 'usage', 'stop'],
    [{ name: 'InvalidObjectState', status: 403 }, 'unsupported', 'stop'],
    [{ name: 'NotImplemented', status: 501 }, 'unsupported', 'stop'],
  ]
  for (const [facts, code, recovery] of cases) {
    const fault = fromS3(thrown(facts), 'read s3://b/k', undefined)
    assert.ok(fault instanceof Fault, JSON.stringify(facts))
    assert.deepEqual([fault.code, fault.recovery], [code, recovery], JSON.stringify(facts))
    assert.ok(fault.message.startsWith('read s3://b/k: '), fault.message)
  }
})

test('fromS3() leaves Faults, aborts and defects as they are', () => {
  const fault = new Fault('corrupt', 'read it: no')
  assert.equal(fromS3(fault, 'read', undefined), fault)
  const reason = new Error('enough')
  const lost = thrown({ code: 'ECONNRESET' })
  assert.equal(fromS3(lost, 'read', AbortSignal.abort(reason)), reason)
  const defect = new TypeError('undefined is not a function')
  assert.equal(fromS3(defect, 'read', undefined), defect)
})
