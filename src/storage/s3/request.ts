import { createHash } from 'node:crypto'
import type { CreateMultipartUploadCommandInput, PutObjectCommandInput } from '@aws-sdk/client-s3'
import type { PutOptions } from '../storage.ts'
import type { S3Place } from './place.ts'

type NewObject = Pick<
  CreateMultipartUploadCommandInput & PutObjectCommandInput,
  | 'Bucket'
  | 'Key'
  | 'ContentType'
  | 'StorageClass'
  | 'ServerSideEncryption'
  | 'SSEKMSKeyId'
  | 'ObjectLockMode'
  | 'ObjectLockRetainUntilDate'
>

/** What a put and the beginning of a multipart upload have in common. */
export function newObject(place: S3Place, key: string, options: PutOptions): NewObject {
  const { retainUntilMs } = options
  return {
    Bucket: place.bucket,
    Key: place.prefix + key,
    ContentType: 'application/octet-stream',
    ...(place.storageClass
      ? { StorageClass: place.storageClass as NonNullable<NewObject['StorageClass']> }
      : {}),
    ...(place.sse
      ? { ServerSideEncryption: place.sse as NonNullable<NewObject['ServerSideEncryption']> }
      : {}),
    ...(place.sseKmsKeyId ? { SSEKMSKeyId: place.sseKmsKeyId } : {}),
    ...(retainUntilMs === undefined
      ? {}
      : { ObjectLockMode: place.lockMode, ObjectLockRetainUntilDate: new Date(retainUntilMs) }),
  }
}

export function putRequest(
  place: S3Place,
  key: string,
  put: {
    readonly body: Uint8Array
    readonly options: PutOptions
    readonly locked: boolean
  },
): PutObjectCommandInput {
  return {
    ...newObject(place, key, put.options),
    Body: put.body,
    ...bodyDigest(put.body, put.locked),
    ...(put.options.ifAbsent ? { IfNoneMatch: '*' } : {}),
  }
}

/** S3 demands a digest of each body that goes to a bucket with object lock. */
export function bodyDigest(body: Uint8Array, locked: boolean): { ContentMD5?: string } {
  return locked ? { ContentMD5: createHash('md5').update(body).digest('base64') } : {}
}
