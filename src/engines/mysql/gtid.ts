import { Fault } from '#base/faults'

/** A run of transaction numbers, both ends included. */
type Interval = { first: bigint; last: bigint }

const mysqlPattern = /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})((?::[a-z_][a-z0-9_]{0,31})?)$/
/** No leading zeros: a date is none. Where it could still be both, whoever asks has read it as a time first. */
const mariadbPattern = /^(0|[1-9]\d*)-(0|[1-9]\d*)-(0|[1-9]\d*)$/

/**
 * Which transactions a server has: MySQL's sets of intervals by source (and tag), or MariaDB's last sequence number
 * of each domain.
 */
export interface GtidSet {
  has(id: string): boolean
  add(id: string): void
  /** Whether all of the other set is in this one. */
  covers(other: GtidSet): boolean
  readonly empty: boolean
  toString(): string
}

export function createGtidSet(family: 'mysql' | 'mariadb', text = ''): GtidSet {
  return family === 'mysql' ? new MysqlGtids(text) : new MariadbGtids(text)
}

/** Whether a text names one transaction of either family. */
export function isGtid(text: string): boolean {
  const colon = text.lastIndexOf(':')
  const mysql =
    colon > 0 &&
    /^\d+$/.test(text.slice(colon + 1)) &&
    mysqlPattern.test(text.slice(0, colon).toLowerCase())
  return mysql || mariadbPattern.test(text)
}

/** https://dev.mysql.com/doc/refman/9.0/en/replication-gtids-concepts.html */
class MysqlGtids implements GtidSet {
  readonly #sources = new Map<string, Interval[]>()

  constructor(text: string) {
    for (const part of text.replaceAll(/\s/g, '').toLowerCase().split(',')) {
      if (part !== '') this.#parse(part)
    }
  }

  /** `uuid:1-5:7:tag:1-3`: a tag holds for the intervals behind it. */
  #parse(part: string): void {
    const [uuid = '', ...items] = part.split(':')
    let source = uuid
    for (const item of items) {
      const match = /^(\d+)(?:-(\d+))?$/.exec(item)
      if (!match) {
        source = `${uuid}:${item}`
        continue
      }
      const first = BigInt(match[1] ?? '0')
      this.#insert(checkSource(source), { first, last: BigInt(match[2] ?? first) })
    }
  }

  #insert(source: string, added: Interval): void {
    const old = this.#sources.get(source) ?? []
    const tail = old.at(-1)
    if (tail && added.first === tail.last + 1n) {
      tail.last = added.last
      return
    }
    const kept: Interval[] = []
    for (const interval of old) {
      if (interval.last + 1n < added.first || interval.first > added.last + 1n) kept.push(interval)
      else {
        if (interval.first < added.first) added.first = interval.first
        if (interval.last > added.last) added.last = interval.last
      }
    }
    kept.push(added)
    kept.sort((a, b) => (a.first < b.first ? -1 : 1))
    this.#sources.set(source, kept)
  }

  add(id: string): void {
    const [source, number] = splitGtid(id)
    this.#insert(source, { first: number, last: number })
  }

  has(id: string): boolean {
    const [source, number] = splitGtid(id)
    return this.#holds(source, { first: number, last: number })
  }

  #holds(source: string, wanted: Interval): boolean {
    const intervals = this.#sources.get(source) ?? []
    return intervals.some(({ first, last }) => first <= wanted.first && wanted.last <= last)
  }

  covers(other: GtidSet): boolean {
    if (!(other instanceof MysqlGtids)) return false
    for (const [source, intervals] of other.#sources) {
      if (!intervals.every((interval) => this.#holds(source, interval))) return false
    }
    return true
  }

  get empty(): boolean {
    return this.#sources.size === 0
  }

  toString(): string {
    const parts = [...this.#sources].map(([source, intervals]) => {
      const runs = intervals.map(({ first, last }) => (first === last ? first : `${first}-${last}`))
      return [source, ...runs].join(':')
    })
    return parts.sort().join(',')
  }
}

function checkSource(source: string): string {
  if (!mysqlPattern.test(source)) throw new Fault('protocol', `read GTID set: source ${source}`)
  return source
}

function splitGtid(id: string): [string, bigint] {
  const colon = id.lastIndexOf(':')
  const source = id.slice(0, colon).toLowerCase()
  if (!isGtid(id)) throw new Fault('protocol', `read GTID ${id}: it is none`)
  return [source, BigInt(id.slice(colon + 1))]
}

/**
 * Within a domain sequence numbers only grow, whoever wrote them: one number a domain tells what was seen.
 * https://mariadb.com/kb/en/gtid/
 */
class MariadbGtids implements GtidSet {
  readonly #domains = new Map<string, { server: string; sequence: bigint }>()

  constructor(text: string) {
    for (const part of text.replaceAll(/\s/g, '').split(',')) if (part !== '') this.add(part)
  }

  add(id: string): void {
    const [domain, server, sequence] = splitMariadb(id)
    const old = this.#domains.get(domain)
    if (!old || old.sequence < sequence) this.#domains.set(domain, { server, sequence })
  }

  has(id: string): boolean {
    const [domain, , sequence] = splitMariadb(id)
    return (this.#domains.get(domain)?.sequence ?? -1n) >= sequence
  }

  covers(other: GtidSet): boolean {
    if (!(other instanceof MariadbGtids)) return false
    for (const [domain, { server, sequence }] of other.#domains) {
      const own = this.#domains.get(domain)
      if (!own || own.sequence < sequence) return false
      // The same number given by another server is another transaction.
      if (own.sequence === sequence && own.server !== server) return false
    }
    return true
  }

  get empty(): boolean {
    return this.#domains.size === 0
  }

  toString(): string {
    const parts = [...this.#domains].map(([domain, at]) => `${domain}-${at.server}-${at.sequence}`)
    return parts.sort().join(',')
  }
}

function splitMariadb(id: string): [string, string, bigint] {
  const match = mariadbPattern.exec(id)
  if (!match) throw new Fault('protocol', `read GTID ${id}: it is none`)
  const [, domain = '', server = '', sequence = ''] = match
  return [domain, server, BigInt(sequence)]
}
