import type { SchemaObject } from '#change/schema'
import type { Flavor } from './flavor.ts'

/** What a target can hold. */
export type Ability = { readonly flavor: Flavor }

/** An object as the target's version says it. */
export function adapt(object: SchemaObject, _ability: Ability): SchemaObject {
  return object
}
