import { Fault } from '#base/faults'

/**
 * Reads the fields of a JSON record that came from a store. What is absent or of another type is `corrupt`, naming the
 * record and the field. Fields that are not asked for are left alone: newer writers may add some.
 */
export class Fields {
  readonly #what: string
  readonly #values: Readonly<Record<string, unknown>>

  private constructor(what: string, values: Readonly<Record<string, unknown>>) {
    this.#what = what
    this.#values = values
  }

  /** `what` names the record in messages. */
  static parse(json: string | Buffer, what: string): Fields {
    let value: unknown
    try {
      value = JSON.parse(json.toString())
    } catch (error) {
      throw new Fault('corrupt', `read ${what}: it is no JSON`, { cause: error })
    }
    return Fields.of(value, what)
  }

  static of(value: unknown, what: string): Fields {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new Fault('corrupt', `read ${what}: it is no JSON object`)
    }
    return new Fields(what, value as Readonly<Record<string, unknown>>)
  }

  has(name: string): boolean {
    return this.#values[name] !== undefined && this.#values[name] !== null
  }

  raw(name: string): unknown {
    return this.#values[name]
  }

  text(name: string): string {
    const value = this.#values[name]
    return typeof value === 'string' ? value : this.#refuse(name, 'a text')
  }

  oneOf<T extends string>(name: string, known: readonly T[]): T {
    const value = known.find((one) => one === this.#values[name])
    return value ?? this.#refuse(name, `one of ${known.join(', ')}`)
  }

  hex(name: string, bytes: number): string {
    const value = this.text(name)
    const fits = value.length === bytes * 2 && /^[0-9a-f]*$/.test(value)
    return fits ? value : this.#refuse(name, `${bytes} bytes in hexadecimal`)
  }

  /** A whole number from 0 up to what a double holds exactly. */
  count(name: string): number {
    const value = this.#values[name]
    const fits = typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
    return fits ? value : this.#refuse(name, 'a whole number')
  }

  flag(name: string): boolean {
    const value = this.#values[name]
    return typeof value === 'boolean' ? value : this.#refuse(name, 'true or false')
  }

  /** A whole number of any size, written as text. */
  bigint(name: string): bigint {
    const value = this.#values[name]
    const fits = typeof value === 'string' && /^-?\d{1,20}$/.test(value)
    return fits ? BigInt(value) : this.#refuse(name, 'a whole number as text')
  }

  optional<T>(name: string, read: (fields: this, name: string) => T): T | undefined {
    return this.has(name) ? read(this, name) : undefined
  }

  object(name: string): Fields {
    return Fields.of(this.#values[name], `${this.#what}, field ${name}`)
  }

  list(name: string): readonly unknown[] {
    const value = this.#values[name]
    return Array.isArray(value) ? (value as unknown[]) : this.#refuse(name, 'a list')
  }

  #refuse(name: string, wanted: string): never {
    throw new Fault('corrupt', `read ${this.#what}: field ${name} is not ${wanted}`)
  }
}
