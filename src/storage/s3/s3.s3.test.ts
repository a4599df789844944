import { storageSuite } from '../storage.suite.ts'
import { sharedCeph } from '../../../test/support/servers/ceph.ts'
import { openS3Storage } from './s3.ts'

const open = async (bucketOptions: { objectLock?: boolean } = {}, prefix = '') => {
  const ceph = await sharedCeph()
  const bucket = await ceph.createBucket(bucketOptions)
  return openS3Storage(`${ceph.url(bucket, prefix)}&part-size=5MiB`, {
    credentials: { accessKeyId: ceph.accessKey, secretAccessKey: ceph.secretKey },
  })
}

const streamBytes = 11_000_003
storageSuite('s3', () => open(), { streamBytes })
storageSuite('s3 below a prefix', () => open({}, 'some/vault'), { streamBytes })
storageSuite('s3 with object lock', () => open({ objectLock: true }), { streamBytes })
