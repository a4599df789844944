function two(value: number): string {
  return value < 10 ? `0${value}` : String(value)
}

/** Year and month as year * 13 + month above the day of 5 bits, above hour, minute and second of 5, 6 and 6 bits. */
export function formatDateTime(packed: number): string {
  const date = Math.floor(packed / 131_072)
  const time = packed % 131_072
  const month = Math.floor(date / 32)
  const year = String(Math.floor(month / 13)).padStart(4, '0')
  const day = `${year}-${two(month % 13)}-${two(date % 32)}`
  return `${day} ${two(time >> 12)}:${two((time >> 6) & 63)}:${two(time & 63)}`
}

/** Hour of 10 bits, minute and second of 6 each. */
export function formatTime(packed: number): string {
  return `${two((packed >> 12) & 1023)}:${two((packed >> 6) & 63)}:${two(packed & 63)}`
}

/** Seconds since 1970, in UTC; none is the zero date. */
export function formatTimestamp(seconds: number): string {
  if (seconds === 0) return '0000-00-00 00:00:00'
  return new Date(seconds * 1000).toISOString().slice(0, 19).replace('T', ' ')
}

const digitBytes = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4]

/** Digits by nines in four bytes each, the odd ones outermost; the sign in the first bit, negative ones inverted. */
export function formatDecimal(
  bytes: Buffer,
  start: number,
  precision: number,
  scale: number,
): string {
  const negative = ((bytes[start] ?? 0) & 0x80) === 0
  const mask = negative ? 0xff : 0
  let at = start
  const take = (digits: number): number => {
    const end = at + (digitBytes[digits] ?? 0)
    let value = 0
    for (; at < end; at++) {
      const byte = (bytes[at] ?? 0) ^ mask
      value = value * 256 + (at === start ? byte ^ 0x80 : byte)
    }
    return value
  }
  const whole = precision - scale
  let left = whole % 9 === 0 ? '' : String(take(whole % 9))
  for (let nines = Math.floor(whole / 9); nines > 0; nines--) {
    const digits = take(9)
    left = left === '' || left === '0' ? String(digits) : left + String(digits).padStart(9, '0')
  }
  let right = ''
  for (let nines = Math.floor(scale / 9); nines > 0; nines--)
    right += String(take(9)).padStart(9, '0')
  if (scale % 9 > 0) right += String(take(scale % 9)).padStart(scale % 9, '0')
  return `${negative ? '-' : ''}${left === '' ? '0' : left}${right === '' ? '' : `.${right}`}`
}
