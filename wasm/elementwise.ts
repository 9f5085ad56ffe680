/**
 * What maps element to element: activation, sums, copies, dropout. Each works on elements
 * begin … end − 1, and an element's bits do not depend on where such a range is cut.
 */
import { loadUpTo, storeUpTo } from "./simd";
import { exactGelus, gelus, geluSlopes } from "./math";

/** out = GELU(x), by the error function where it is to be exact, else in the tanh form. */
export function gelu(x: usize, out: usize, exact: bool, begin: usize, end: usize): void {
  if (exact) exactGelus(x + begin * 4, x + end * 4, out + begin * 4);
  else gelus(x + begin * 4, x + end * 4, out + begin * 4);
}

/** dX = dOut · GELU′(x), or that added to it. */
export function geluBackward(
  x: usize,
  dOut: usize,
  dX: usize,
  accumulate: bool,
  begin: usize,
  end: usize,
): void {
  geluSlopes(x + begin * 4, x + end * 4, dOut + begin * 4, dX + begin * 4, accumulate);
}

/** out = a + b */
export function add(a: usize, b: usize, out: usize, begin: usize, end: usize): void {
  for (let i = begin; i < end; i += 4) {
    const at = i * 4;
    storeUpTo(out + at, f32x4.add(loadUpTo(a + at, end - i), loadUpTo(b + at, end - i)), end - i);
  }
}

/** out = value */
export function fill(out: usize, value: f32, begin: usize, end: usize): void {
  const v = f32x4.splat(value);
  for (let i = begin; i < end; i += 4) storeUpTo(out + i * 4, v, end - i);
}

/** As in `math.ts`, constants of loops come from memory. */
const CONSTANTS: usize = memory.data<u32>([0x85ebca6b, 0xc2b2ae35]);

/** MurmurHash3's finaliser; `src/tensor/random.ts` says the same of one number. */
// @ts-ignore: decorator
@inline
function mix(x: v128): v128 {
  x = i32x4.mul(v128.xor(x, i32x4.shr_u(x, 16)), v128.load32_splat(CONSTANTS));
  x = i32x4.mul(v128.xor(x, i32x4.shr_u(x, 13)), v128.load32_splat(CONSTANTS + 4));
  return v128.xor(x, i32x4.shr_u(x, 16));
}

/**
 * out = x · scale where an element's 24 random bits reach `threshold`, else 0; or that added to it.
 *
 * @param threshold ⌈probability · 2²⁴⌉, which decides exactly as `uniform(i) >= probability` does.
 */
export function dropout(
  x: usize,
  out: usize,
  threshold: u32,
  scale: f32,
  key0: u32,
  key1: u32,
  accumulate: bool,
  begin: usize,
  end: usize,
): void {
  const factor = f32x4.splat(scale);
  const least = i32x4.splat(threshold);
  const first = i32x4.splat(key0);
  const second = i32x4.splat(key1);
  const lanes = i32x4(0, 1, 2, 3);
  for (let i = begin; i < end; i += 4) {
    const at = i * 4;
    const count = end - i;
    const place = i32x4.add(i32x4.splat(<u32> i + 0x9e3779b9), lanes);
    const bits = mix(v128.xor(mix(v128.xor(mix(place), first)), second));
    const kept = i32x4.ge_s(i32x4.shr_u(bits, 8), least);
    let v = v128.and(f32x4.mul(loadUpTo(x + at, count), factor), kept);
    if (accumulate) v = f32x4.add(v, loadUpTo(out + at, count));
    storeUpTo(out + at, v, count);
  }
}
