// Byte loops of the repository for which neither the JavaScript engine nor OpenSSL has an answer: content-defined
// cutting by Rabin fingerprints, and Poly1305 alone. Compiled by AssemblyScript to build/kernels.wasm.
//
// Layout of the memory, which the caller owns; caller's data starts at 65536:
//    8192  reduction table, 256 x u64       10240  removal table, 256 x u64
//   12288  both tables by half bytes        12800  the window of the lanes: 2 KiB
//   16384  state of the functions below     20480  one-time key of 32 bytes, then the tag of 16 bytes
//   32768  scratch memory of those who look at blocks: 32 KiB
const REDUCE: usize = 8192;
const REMOVE: usize = 10240;
const STATE: usize = 16384;

// ---------------------------------------------------------------- Rabin fingerprints
// The polynomial has degree 53, so a digest has 53 bits and its top byte is the digest shifted by 45.
const TOP: u64 = 45;

// @ts-ignore: decorator
@inline function reduction(top: u64): u64 {
  return load<u64>(REDUCE + (<usize>top << 3));
}

// One byte in, the byte 64 before it out. The removal table is multiplied by x^8 beforehand, so that removal
// needs no step of its own.
// @ts-ignore: decorator
@inline function slide(digest: u64, entering: u32, leaving: u32): u64 {
  return ((digest << 8) | <u64>entering) ^ reduction(digest >> TOP) ^ load<u64>(REMOVE + (<usize>leaving << 3));
}

// @ts-ignore: decorator
@inline function digestBefore(p: usize): u64 {
  let digest: u64 = 0;
  for (let q: usize = p - 64; q < p; q++) digest = ((digest << 8) | <u64>load<u8>(q)) ^ reduction(digest >> TOP);
  return digest;
}

// @ts-ignore: decorator
@inline function hit(digest: u64, mask: u32): bool {
  return (<u32>digest & mask) == 0;
}

/**
 * The first position in [p, end] where the fingerprint of the 64 bytes before it has zeros under the mask, which is
 * below 2^21; 0 if there is none. 64 bytes before p must be readable. Positions depend on these bytes alone,
 * whatever p is.
 */
export function findCut(p: usize, end: usize, mask: u32): usize {
  for (let lane = laneBytes(end - p); lane > 0; lane = laneBytes(end - p)) {
    const found = findInLanes(p, lane, mask);
    if (found) return found;
    p += LANES * lane;
  }
  let digest = digestBefore(p);
  if (hit(digest, mask)) return p;
  while (p < end) {
    digest = slide(digest, load<u8>(p), load<u8>(p - 64));
    p++;
    if (hit(digest, mask)) return p;
  }
  return 0;
}

// Sixteen lanes of bytes are searched side by side, one in each byte of a vector. A digest is kept three bits to the
// left, in seven vectors of one byte each: so a step of eight bits is a change of names, and the byte that drops out
// at the top is a whole one. What that byte and the one that leaves the window add to the digest is looked up by
// half bytes, for which there is an instruction: the additions of both halves sum up, as everything does here.
const LANES: usize = 16;
/** The longest lane: each begins anew with the 64 bytes before it, and a cut makes the rest of all others worthless. */
const LANE_MAX: usize = 2048;
/** Of the lower and the upper half of the byte at the top, and of the leaving byte: seven tables of 16 bytes each. */
const TOP_LOW: usize = 12288;
const TOP_HIGH: usize = TOP_LOW + 112;
const LEFT_LOW: usize = TOP_HIGH + 112;
const LEFT_HIGH: usize = LEFT_LOW + 112;
/** The last 128 bytes of each lane, 16 bytes of all lanes side by side. */
const WINDOW: usize = 12800;
const WINDOW_MASK: usize = 2047;
const FIRSTS: usize = STATE + 1024;
/** Rows that are being turned into columns. */
const WOVEN: usize = STATE + 2048;

// How long the lanes are in which so many bytes are searched: a multiple of 16; 0 when it is not worth it.
// @ts-ignore: decorator
@inline function laneBytes(size: usize): usize {
  const share = size / LANES & ~15;
  return share < 64 ? 0 : share < LANE_MAX ? share : LANE_MAX;
}

// @ts-ignore: decorator
@inline function look(table: usize, plane: usize, half: v128): v128 {
  return i8x16.relaxed_swizzle(v128.load(table + plane * 16), half);
}

// @ts-ignore: decorator
@inline function fromTop(plane: usize, low: v128, high: v128): v128 {
  return v128.xor(look(TOP_LOW, plane, low), look(TOP_HIGH, plane, high));
}

// @ts-ignore: decorator
@inline function fromLeft(plane: usize, low: v128, high: v128): v128 {
  return v128.xor(look(LEFT_LOW, plane, low), look(LEFT_HIGH, plane, high));
}

// @ts-ignore: decorator
@inline function interleave(a: v128, b: v128, upper: bool): v128 {
  return upper
    ? i8x16.shuffle(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
    : i8x16.shuffle(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

/** One of four rounds that turn 16 x 16 bytes around: row i and row i + 8 become rows 2i and 2i + 1. */
function weave(from: usize, to: usize): void {
  for (let i: usize = 0; i < 128; i += 16) {
    const a = v128.load(from + i), b = v128.load(from + i + 128);
    v128.store(to + 2 * i, interleave(a, b, false));
    v128.store(to + 2 * i, interleave(a, b, true), 16);
  }
}

/** Brings 16 bytes of all lanes into the window, which `at` is a place of: byte after byte, those of all lanes together. */
function gather(p: usize, lane: usize, at: usize): void {
  for (let i: usize = 0; i < 128; i += 16) {
    const a = v128.load(p), b = v128.load(p + 8 * lane);
    v128.store(WOVEN + 2 * i, interleave(a, b, false));
    v128.store(WOVEN + 2 * i, interleave(a, b, true), 16);
    p += lane;
  }
  weave(WOVEN, WOVEN + 256);
  weave(WOVEN + 256, WOVEN);
  weave(WOVEN, WINDOW + at);
}

/** The same for the positions in [p, p + 16 * lane]. */
function findInLanes(p: usize, lane: usize, mask: u32): usize {
  const mask0 = i8x16.splat(<i8>(mask << 3)), mask1 = i8x16.splat(<i8>(mask >> 5)), mask2 = i8x16.splat(<i8>(mask >> 13));
  const half = i8x16.splat(15), upper5 = i8x16.splat(-8), lower3 = i8x16.splat(7);
  const zero = i8x16.splat(0);
  let d0 = zero, d1 = zero, d2 = zero, d3 = zero, d4 = zero, d5 = zero, d6 = zero;
  // The window before each lane: nothing leaves.
  for (let q: usize = 0; q < 64; q += 16) {
    gather(p - 64 + q, lane, q << 4);
    for (let row: usize = q << 4, stop = row + 256; row < stop; row += 16) {
      const entering = v128.load(WINDOW + row);
      const low = v128.and(d6, half), high = v128.and(i16x8.shr_u(d6, 4), half);
      d6 = v128.xor(d5, fromTop(6, low, high));
      d5 = v128.xor(d4, fromTop(5, low, high));
      d4 = v128.xor(d3, fromTop(4, low, high));
      d3 = v128.xor(d2, fromTop(3, low, high));
      d2 = v128.xor(d1, fromTop(2, low, high));
      d1 = v128.xor(v128.xor(d0, fromTop(1, low, high)), v128.and(i16x8.shr_u(entering, 5), lower3));
      d0 = v128.xor(fromTop(0, low, high), v128.and(i16x8.shl(entering, 3), upper5));
    }
  }
  let firstLanes: u32 = 0;
  let miss = v128.or(v128.or(v128.and(d0, mask0), v128.and(d1, mask1)), v128.and(d2, mask2));
  // Only the first lane's own beginning is nobody else's end.
  if (i8x16.extract_lane_u(miss, 0) == 0) return p;
  for (let q: usize = 0; q < lane; q += 16) {
    const begin = (q + 64) << 4 & WINDOW_MASK;
    gather(p + q, lane, begin);
    let least = i8x16.splat(-1);
    for (let row: usize = begin, stop = row + 256; row < stop; row += 16) {
      const entering = v128.load(WINDOW + row), leaving = v128.load(WINDOW + ((row - 1024) & WINDOW_MASK));
      const low = v128.and(d6, half), high = v128.and(i16x8.shr_u(d6, 4), half);
      const leftLow = v128.and(leaving, half), leftHigh = v128.and(i16x8.shr_u(leaving, 4), half);
      d6 = v128.xor(v128.xor(d5, fromTop(6, low, high)), fromLeft(6, leftLow, leftHigh));
      d5 = v128.xor(v128.xor(d4, fromTop(5, low, high)), fromLeft(5, leftLow, leftHigh));
      d4 = v128.xor(v128.xor(d3, fromTop(4, low, high)), fromLeft(4, leftLow, leftHigh));
      d3 = v128.xor(v128.xor(d2, fromTop(3, low, high)), fromLeft(3, leftLow, leftHigh));
      d2 = v128.xor(v128.xor(d1, fromTop(2, low, high)), fromLeft(2, leftLow, leftHigh));
      d1 = v128.xor(
        v128.xor(v128.xor(d0, fromTop(1, low, high)), fromLeft(1, leftLow, leftHigh)),
        v128.and(i16x8.shr_u(entering, 5), lower3),
      );
      d0 = v128.xor(
        v128.xor(fromTop(0, low, high), fromLeft(0, leftLow, leftHigh)),
        v128.and(i16x8.shl(entering, 3), upper5),
      );
      miss = v128.or(v128.or(v128.and(d0, mask0), v128.and(d1, mask1)), v128.and(d2, mask2));
      least = i8x16.min_u(least, miss);
    }
    if (i8x16.all_true(least)) continue;
    // Lanes whose first cut is among these 16 positions; which of them comes first is known at the end.
    const lanes: u32 = i8x16.bitmask(i8x16.eq(least, zero)) & ~firstLanes;
    for (let rest = lanes; rest; rest &= rest - 1) store<u32>(FIRSTS + (ctz(rest) << 2), <u32>q);
    firstLanes |= lanes;
    // Nobody stands before the first lane.
    if (lanes & 1) break;
  }
  if (!firstLanes) return 0;
  const first: usize = ctz(firstLanes);
  return exactCut(p + first * lane + load<u32>(FIRSTS + (first << 2)), mask);
}

/** The cut that is known to be in [p + 1, p + 16]. */
function exactCut(p: usize, mask: u32): usize {
  let digest = digestBefore(p);
  do {
    digest = slide(digest, load<u8>(p), load<u8>(p - 64));
    p++;
  } while (!hit(digest, mask));
  return p;
}

// ---------------------------------------------------------------- Poly1305 (RFC 8439, section 2.5)
// Numbers modulo 2^130 - 5 in five limbs of 26 bits, each kept in a u64.
const SUM: usize = STATE;
const POWERS: usize = STATE + 64; // r, r^2, r^3, r^4: five limbs each
const POWER4: usize = POWERS + 120;
const LANE_SUMS: usize = STATE + 512;
const TERM: usize = STATE + 640;
const LAST: usize = STATE + 768;
const LOW26: u64 = 0x3ffffff;

/** out = a * b, carried. */
function multiply(a: usize, b: usize, out: usize): void {
  const a0 = load<u64>(a), a1 = load<u64>(a, 8), a2 = load<u64>(a, 16), a3 = load<u64>(a, 24), a4 = load<u64>(a, 32);
  const b0 = load<u64>(b), b1 = load<u64>(b, 8), b2 = load<u64>(b, 16), b3 = load<u64>(b, 24), b4 = load<u64>(b, 32);
  const f1 = b1 * 5, f2 = b2 * 5, f3 = b3 * 5, f4 = b4 * 5;
  let d0 = a0 * b0 + a1 * f4 + a2 * f3 + a3 * f2 + a4 * f1;
  let d1 = a0 * b1 + a1 * b0 + a2 * f4 + a3 * f3 + a4 * f2;
  let d2 = a0 * b2 + a1 * b1 + a2 * b0 + a3 * f4 + a4 * f3;
  let d3 = a0 * b3 + a1 * b2 + a2 * b1 + a3 * b0 + a4 * f4;
  let d4 = a0 * b4 + a1 * b3 + a2 * b2 + a3 * b1 + a4 * b0;
  d1 += d0 >> 26; d0 &= LOW26;
  d2 += d1 >> 26; d1 &= LOW26;
  d3 += d2 >> 26; d2 &= LOW26;
  d4 += d3 >> 26; d3 &= LOW26;
  d0 += (d4 >> 26) * 5; d4 &= LOW26;
  d1 += d0 >> 26; d0 &= LOW26;
  store<u64>(out, d0); store<u64>(out, d1, 8); store<u64>(out, d2, 16); store<u64>(out, d3, 24); store<u64>(out, d4, 32);
}

/** Starts a tag under the 32-byte one-time key at `key`; its first half is clamped here. */
export function tagBegin(key: usize): void {
  const t0 = load<u32>(key), t1 = load<u32>(key, 4), t2 = load<u32>(key, 8), t3 = load<u32>(key, 12);
  store<u64>(POWERS, <u64>(t0 & 0x3ffffff));
  store<u64>(POWERS, <u64>(((t0 >>> 26) | (t1 << 6)) & 0x3ffff03), 8);
  store<u64>(POWERS, <u64>(((t1 >>> 20) | (t2 << 12)) & 0x3ffc0ff), 16);
  store<u64>(POWERS, <u64>(((t2 >>> 14) | (t3 << 18)) & 0x3f03fff), 24);
  store<u64>(POWERS, <u64>((t3 >>> 8) & 0x00fffff), 32);
  multiply(POWERS, POWERS, POWERS + 40);
  multiply(POWERS + 40, POWERS, POWERS + 80);
  multiply(POWERS + 40, POWERS + 40, POWER4);
  for (let k: usize = 0; k < 40; k += 8) store<u64>(SUM + k, 0);
}

/** Takes in `length` bytes, a multiple of 16; may be called again. */
export function tagUpdate(p: usize, length: usize): void {
  const groups = length >= 256 ? length >> 6 : 0;
  if (groups) groupsOfFour(p, groups);
  singles(p + (groups << 6), (length - (groups << 6)) >> 4);
}

function singles(p: usize, count: usize): void {
  let h0 = load<u64>(SUM), h1 = load<u64>(SUM, 8), h2 = load<u64>(SUM, 16), h3 = load<u64>(SUM, 24), h4 = load<u64>(SUM, 32);
  const r0 = load<u64>(POWERS), r1 = load<u64>(POWERS, 8), r2 = load<u64>(POWERS, 16), r3 = load<u64>(POWERS, 24), r4 = load<u64>(POWERS, 32);
  const f1 = r1 * 5, f2 = r2 * 5, f3 = r3 * 5, f4 = r4 * 5;
  for (; count > 0; count--, p += 16) {
    const low = load<u64>(p), high = load<u64>(p, 8);
    h0 += low & LOW26;
    h1 += (low >> 26) & LOW26;
    h2 += ((low >> 52) | (high << 12)) & LOW26;
    h3 += (high >> 14) & LOW26;
    h4 += (high >> 40) | (1 << 24);
    let d0 = h0 * r0 + h1 * f4 + h2 * f3 + h3 * f2 + h4 * f1;
    let d1 = h0 * r1 + h1 * r0 + h2 * f4 + h3 * f3 + h4 * f2;
    let d2 = h0 * r2 + h1 * r1 + h2 * r0 + h3 * f4 + h4 * f3;
    let d3 = h0 * r3 + h1 * r2 + h2 * r1 + h3 * r0 + h4 * f4;
    let d4 = h0 * r4 + h1 * r3 + h2 * r2 + h3 * r1 + h4 * r0;
    d1 += d0 >> 26; h0 = d0 & LOW26;
    d2 += d1 >> 26; h1 = d1 & LOW26;
    d3 += d2 >> 26; h2 = d2 & LOW26;
    d4 += d3 >> 26; h3 = d3 & LOW26;
    h0 += (d4 >> 26) * 5; h4 = d4 & LOW26;
    h1 += h0 >> 26; h0 &= LOW26;
  }
  store<u64>(SUM, h0); store<u64>(SUM, h1, 8); store<u64>(SUM, h2, 16); store<u64>(SUM, h3, 24); store<u64>(SUM, h4, 32);
}

// @ts-ignore: decorator
@inline function low(a: v128, b: v128): v128 { return i64x2.extmul_low_i32x4_u(a, b); }
// @ts-ignore: decorator
@inline function high(a: v128, b: v128): v128 { return i64x2.extmul_high_i32x4_u(a, b); }
// @ts-ignore: decorator
@inline function add(a: v128, b: v128): v128 { return i64x2.add(a, b); }
// @ts-ignore: decorator
@inline function narrow(a: v128, b: v128): v128 { return i32x4.shuffle(a, b, 0, 2, 4, 6); }

/**
 * Four blocks at a time, one in each lane: lane j gathers the blocks j, j+4, ... by Horner's rule in r^4, and
 * in the end counts r^(4-j) times. What was summed up before enters lane 0 with its first block.
 */
function groupsOfFour(p: usize, groups: usize): void {
  const r0 = i32x4.splat(load<i32>(POWER4)), r1 = i32x4.splat(load<i32>(POWER4, 8)), r2 = i32x4.splat(load<i32>(POWER4, 16));
  const r3 = i32x4.splat(load<i32>(POWER4, 24)), r4 = i32x4.splat(load<i32>(POWER4, 32));
  const f1 = i32x4.splat(load<i32>(POWER4, 8) * 5), f2 = i32x4.splat(load<i32>(POWER4, 16) * 5);
  const f3 = i32x4.splat(load<i32>(POWER4, 24) * 5), f4 = i32x4.splat(load<i32>(POWER4, 32) * 5);
  const low26 = i32x4.splat(0x3ffffff), low26wide = i64x2.splat(0x3ffffff), bit128 = i32x4.splat(1 << 24);
  const zero = i32x4.splat(0);
  let h0 = i32x4.replace_lane(zero, 0, load<i32>(SUM)), h1 = i32x4.replace_lane(zero, 0, load<i32>(SUM, 8));
  let h2 = i32x4.replace_lane(zero, 0, load<i32>(SUM, 16)), h3 = i32x4.replace_lane(zero, 0, load<i32>(SUM, 24));
  let h4 = i32x4.replace_lane(zero, 0, load<i32>(SUM, 32));
  for (let first = true; groups > 0; groups--, p += 64) {
    if (!first) {
      let d0 = add(add(low(h0, r0), low(h1, f4)), add(add(low(h2, f3), low(h3, f2)), low(h4, f1)));
      let e0 = add(add(high(h0, r0), high(h1, f4)), add(add(high(h2, f3), high(h3, f2)), high(h4, f1)));
      let d1 = add(add(low(h0, r1), low(h1, r0)), add(add(low(h2, f4), low(h3, f3)), low(h4, f2)));
      let e1 = add(add(high(h0, r1), high(h1, r0)), add(add(high(h2, f4), high(h3, f3)), high(h4, f2)));
      let d2 = add(add(low(h0, r2), low(h1, r1)), add(add(low(h2, r0), low(h3, f4)), low(h4, f3)));
      let e2 = add(add(high(h0, r2), high(h1, r1)), add(add(high(h2, r0), high(h3, f4)), high(h4, f3)));
      let d3 = add(add(low(h0, r3), low(h1, r2)), add(add(low(h2, r1), low(h3, r0)), low(h4, f4)));
      let e3 = add(add(high(h0, r3), high(h1, r2)), add(add(high(h2, r1), high(h3, r0)), high(h4, f4)));
      let d4 = add(add(low(h0, r4), low(h1, r3)), add(add(low(h2, r2), low(h3, r1)), low(h4, r0)));
      let e4 = add(add(high(h0, r4), high(h1, r3)), add(add(high(h2, r2), high(h3, r1)), high(h4, r0)));
      // Two carry chains side by side: 0 -> 1 -> 2 -> 3 and 3 -> 4 -> 0.
      d1 = add(d1, i64x2.shr_u(d0, 26)); e1 = add(e1, i64x2.shr_u(e0, 26));
      d4 = add(d4, i64x2.shr_u(d3, 26)); e4 = add(e4, i64x2.shr_u(e3, 26));
      d0 = v128.and(d0, low26wide); e0 = v128.and(e0, low26wide);
      d3 = v128.and(d3, low26wide); e3 = v128.and(e3, low26wide);
      d2 = add(d2, i64x2.shr_u(d1, 26)); e2 = add(e2, i64x2.shr_u(e1, 26));
      d1 = v128.and(d1, low26wide); e1 = v128.and(e1, low26wide);
      const over = i64x2.shr_u(d4, 26), overHigh = i64x2.shr_u(e4, 26);
      d0 = add(d0, add(over, i64x2.shl(over, 2))); e0 = add(e0, add(overHigh, i64x2.shl(overHigh, 2)));
      d4 = v128.and(d4, low26wide); e4 = v128.and(e4, low26wide);
      d3 = add(d3, i64x2.shr_u(d2, 26)); e3 = add(e3, i64x2.shr_u(e2, 26));
      d2 = v128.and(d2, low26wide); e2 = v128.and(e2, low26wide);
      d1 = add(d1, i64x2.shr_u(d0, 26)); e1 = add(e1, i64x2.shr_u(e0, 26));
      d0 = v128.and(d0, low26wide); e0 = v128.and(e0, low26wide);
      d4 = add(d4, i64x2.shr_u(d3, 26)); e4 = add(e4, i64x2.shr_u(e3, 26));
      d3 = v128.and(d3, low26wide); e3 = v128.and(e3, low26wide);
      h0 = narrow(d0, e0); h1 = narrow(d1, e1); h2 = narrow(d2, e2); h3 = narrow(d3, e3); h4 = narrow(d4, e4);
    }
    first = false;
    // Four blocks of four words become four words of four blocks.
    const a = v128.load(p), b = v128.load(p, 16), c = v128.load(p, 32), d = v128.load(p, 48);
    const ab0 = i32x4.shuffle(a, b, 0, 4, 1, 5), ab1 = i32x4.shuffle(a, b, 2, 6, 3, 7);
    const cd0 = i32x4.shuffle(c, d, 0, 4, 1, 5), cd1 = i32x4.shuffle(c, d, 2, 6, 3, 7);
    const w0 = i64x2.shuffle(ab0, cd0, 0, 2), w1 = i64x2.shuffle(ab0, cd0, 1, 3);
    const w2 = i64x2.shuffle(ab1, cd1, 0, 2), w3 = i64x2.shuffle(ab1, cd1, 1, 3);
    h0 = i32x4.add(h0, v128.and(w0, low26));
    h1 = i32x4.add(h1, v128.and(v128.or(i32x4.shr_u(w0, 26), i32x4.shl(w1, 6)), low26));
    h2 = i32x4.add(h2, v128.and(v128.or(i32x4.shr_u(w1, 20), i32x4.shl(w2, 12)), low26));
    h3 = i32x4.add(h3, v128.and(v128.or(i32x4.shr_u(w2, 14), i32x4.shl(w3, 18)), low26));
    h4 = i32x4.add(h4, v128.or(i32x4.shr_u(w3, 8), bit128));
  }
  v128.store(LANE_SUMS, h0); v128.store(LANE_SUMS, h1, 16); v128.store(LANE_SUMS, h2, 32); v128.store(LANE_SUMS, h3, 48); v128.store(LANE_SUMS, h4, 64);
  for (let k: usize = 0; k < 40; k += 8) store<u64>(SUM + k, 0);
  for (let lane: usize = 0; lane < 4; lane++) {
    for (let k: usize = 0; k < 5; k++) store<u64>(TERM + k * 8, <u64>load<u32>(LANE_SUMS + k * 16 + lane * 4));
    multiply(TERM, POWERS + 40 * (3 - lane), TERM);
    for (let k: usize = 0; k < 40; k += 8) store<u64>(SUM + k, load<u64>(SUM + k) + load<u64>(TERM + k));
  }
  // The next caller multiplies with 32-bit lanes: multiply by one to carry.
  store<u64>(TERM, 1);
  for (let k: usize = 8; k < 40; k += 8) store<u64>(TERM + k, 0);
  multiply(SUM, TERM, SUM);
}

/** Takes in the last `length` (0 to 15) bytes, and writes the tag to `out`; `key` as in `tagBegin`. */
export function tagEnd(p: usize, length: usize, key: usize, out: usize): void {
  if (length > 0) {
    store<u64>(LAST, 0);
    store<u64>(LAST, 0, 8);
    memory.copy(LAST, p, length);
    store<u8>(LAST + length, 1);
    const low = load<u64>(LAST), high = load<u64>(LAST, 8);
    store<u64>(SUM, load<u64>(SUM) + (low & LOW26));
    store<u64>(SUM, load<u64>(SUM, 8) + ((low >> 26) & LOW26), 8);
    store<u64>(SUM, load<u64>(SUM, 16) + (((low >> 52) | (high << 12)) & LOW26), 16);
    store<u64>(SUM, load<u64>(SUM, 24) + ((high >> 14) & LOW26), 24);
    store<u64>(SUM, load<u64>(SUM, 32) + (high >> 40), 32);
    multiply(SUM, POWERS, SUM);
  }
  let h0 = load<u64>(SUM), h1 = load<u64>(SUM, 8), h2 = load<u64>(SUM, 16), h3 = load<u64>(SUM, 24), h4 = load<u64>(SUM, 32);
  for (let i = 0; i < 2; i++) {
    h1 += h0 >> 26; h0 &= LOW26;
    h2 += h1 >> 26; h1 &= LOW26;
    h3 += h2 >> 26; h2 &= LOW26;
    h4 += h3 >> 26; h3 &= LOW26;
    h0 += (h4 >> 26) * 5; h4 &= LOW26;
  }
  h1 += h0 >> 26; h0 &= LOW26;
  // Subtract 2^130 - 5 once if the sum is not below it.
  let g0 = h0 + 5, g1 = h1 + (g0 >> 26);
  g0 &= LOW26;
  let g2 = h2 + (g1 >> 26);
  g1 &= LOW26;
  let g3 = h3 + (g2 >> 26);
  g2 &= LOW26;
  let g4 = h4 + (g3 >> 26);
  g3 &= LOW26;
  if (g4 >> 26) { h0 = g0; h1 = g1; h2 = g2; h3 = g3; h4 = g4 & LOW26; }
  const low = h0 | (h1 << 26) | (h2 << 52), high = (h2 >> 12) | (h3 << 14) | (h4 << 40);
  const tagLow = low + load<u64>(key, 16);
  store<u64>(out, tagLow);
  store<u64>(out, high + load<u64>(key, 24) + u64(tagLow < low), 8);
}
