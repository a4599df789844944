/**
 * JSON texts made comparable: no blanks, members by name, the last of equal names, numbers by value. Undefined for what is
 * no JSON. Whole numbers of up to 64 bits are kept exactly; others are what a double holds, as servers keep them.
 */
export function canonicalJson(text: string): string | undefined {
  let value: unknown
  try {
    value = JSON.parse(text, (_name, parsed: unknown, context?: { readonly source?: string }) => {
      const written = context?.source
      if (typeof parsed !== 'number' || written === undefined) return parsed
      if (Number.isSafeInteger(parsed) || !/^-?\d{1,20}$/.test(written)) return parsed
      return new ExactNumber(BigInt(written).toString())
    })
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
  return write(value)
}

class ExactNumber {
  readonly digits: string

  constructor(digits: string) {
    this.digits = digits
  }
}

function write(value: unknown): string {
  if (value instanceof ExactNumber) return value.digits
  if (Array.isArray(value)) return `[${value.map(write).join(',')}]`
  if (typeof value === 'object' && value !== null) {
    const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
    return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${write(member)}`).join(',')}}`
  }
  // -0 and 0 are one number in JSON text, as 1.0 and 1 are.
  return JSON.stringify(value === 0 ? 0 : value)
}
