import type { Finding } from '#change/finding'
import type {
  CheckOptions,
  MakeOptions,
  Schema,
  SchemaObject,
  SchemaSource,
  SchemaTarget,
  Selection,
} from '#change/schema'
import type { Flavor } from './flavor.ts'
import type { Endpoint } from './protocol/endpoint.ts'
import { Session } from './protocol/session.ts'
import type { Ability } from './schema-adapt.ts'
import { checkMysqlSchema, readAbility } from './schema-check.ts'
import { makeMysqlObjects } from './schema-make.ts'
import { readMysqlSchema } from './schema-read.ts'

/** Reads and makes all objects of a server. */
export class MysqlSchema implements SchemaSource, SchemaTarget {
  readonly #endpoint: Endpoint
  readonly #flavor: Flavor

  /** What the server can hold does not change while it is filled. */
  #ability: Ability | undefined

  constructor(endpoint: Endpoint, flavor: Flavor) {
    this.#endpoint = endpoint
    this.#flavor = flavor
  }

  async readSchema(
    selection: Selection,
    options: { readonly signal: AbortSignal },
  ): Promise<Schema> {
    return readMysqlSchema({ endpoint: this.#endpoint, flavor: this.#flavor }, selection, options)
  }

  async checkSchema(schema: Schema, options: CheckOptions): Promise<Finding[]> {
    await using session = await openAsker(this.#endpoint, options.signal)
    const ability = await readAbility(session, this.#flavor, options.signal)
    return await checkMysqlSchema(session, ability, schema, options)
  }

  async makeObjects(objects: readonly SchemaObject[], options: MakeOptions): Promise<void> {
    const ability = (this.#ability ??= await this.#readAbility(options.signal))
    const target = { endpoint: this.#endpoint, flavor: this.#flavor, ability }
    await makeMysqlObjects(target, objects, options)
  }

  async #readAbility(signal: AbortSignal): Promise<Ability> {
    await using session = await openAsker(this.#endpoint, signal)
    return await readAbility(session, this.#flavor, signal)
  }
}

async function openAsker(endpoint: Endpoint, signal: AbortSignal): Promise<Session> {
  const session = await Session.open(endpoint, { signal })
  await session.query('SET NAMES utf8mb4', { signal })
  return session
}
