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
import { makeMysqlObjects } from './schema-make.ts'
import { readMysqlSchema } from './schema-read.ts'

/** Reads and makes all objects of a server. */
export class MysqlSchema implements SchemaSource, SchemaTarget {
  readonly #endpoint: Endpoint
  readonly #flavor: Flavor

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

  async checkSchema(_schema: Schema, _options: CheckOptions): Promise<Finding[]> {
    return []
  }

  async makeObjects(objects: readonly SchemaObject[], options: MakeOptions): Promise<void> {
    const ability = { flavor: this.#flavor }
    const target = { endpoint: this.#endpoint, flavor: this.#flavor, ability }
    await makeMysqlObjects(target, objects, options)
  }
}
