/**
 * The choice of the next token, as `SampleArgs` says. A row is one thread's, so that its sums have one order
 * whatever else is in the batch.
 *
 * A row's candidates are n scores, with their ids once some were cut off; ids always ascend.
 */
import { exp, log } from "./math";
import { loadUpTo, maxLanes, storeUpTo, sumLanes, zero } from "./simd";

/** Bytes of a row's options, f64 each: temperature, top-k, top-p, penalty, draw, slot. */
const ROW: usize = 48;
/** Weights that are summed in f32 before f64 takes over. */
const BLOCK: usize = 256;
/** Buckets of a histogram, and the bits of a distance that say which. */
const BITS: u32 = 11;
const BUCKETS: usize = 1 << BITS;
/** The largest number: a penalty gives no larger score, nor 1 / temperature. */
const LARGEST: f64 = 3.4028234663852886e38;

/** As in `math.ts`, constants of loops come from memory. */
const LANES: usize = memory.data<i32>([0, 1, 2, 3]);

// @ts-ignore: decorator
@inline
function vectorBytes(V: usize): usize {
  return (V * 4 + 63) & ~63;
}

// @ts-ignore: decorator
@inline
function sumBytes(V: usize): usize {
  return (V / BLOCK * 8 + 64) & ~63;
}

/** Bytes of scratch memory for rows of V logits, if they do more than take the likeliest. */
export function sampleScratch(V: usize): usize {
  return sumBytes(V) + BUCKETS * 8 + 4 * vectorBytes(V);
}

/**
 * Chooses a token for each of rows begin … end − 1.
 *
 * @param rows Each row's options.
 * @param seen Bit sets of tokens, `words` words for each slot, or 0; the token chosen joins its slot's.
 * @param scratch Needed where a row's temperature is not 0, or its penalty not 1.
 */
export function sample(
  logits: usize,
  V: usize,
  rows: usize,
  seen: usize,
  words: usize,
  tokens: usize,
  logProbs: usize,
  begin: usize,
  end: usize,
  scratch: usize,
): void {
  for (let n = begin; n < end; n++) {
    const x = logits + n * V * 4;
    const row = rows + n * ROW;
    const marks = seen ? seen + <usize> load<f64>(row, 40) * words * 4 : 0;
    let token: usize = 0;
    let logProb: f32 = NaN;
    const top = maximum(x, V);
    if (top > -Infinity && top < Infinity) {
      const reuse = scratch != 0 && load<f64>(row) == 1;
      const total = weigh(x, V, top, 1, reuse ? weightsOf(scratch, V) : 0, scratch);
      token = choose(x, V, top, total, row, marks, scratch);
      logProb = (load<f32>(x + token * 4) - top) - log(<f32> total);
    }
    store<u32>(tokens + n * 4, <u32> token);
    store<f32>(logProbs + n * 4, logProb);
    if (marks) {
      const word = marks + (token >> 5) * 4;
      store<u32>(word, load<u32>(word) | (1 << (<u32> token & 31)));
    }
  }
}

// @ts-ignore: decorator
@inline
function weightsOf(scratch: usize, V: usize): usize {
  return scratch + sumBytes(V) + BUCKETS * 8;
}

/**
 * The token of one row, whose logits are numbers.
 *
 * @param top The largest.
 * @param total Σ exp(logit − top); at a temperature of 1 the addends are at {@linkcode weightsOf} `scratch`, and the
 * sums of their blocks at `scratch`.
 */
function choose(
  x: usize,
  V: usize,
  top: f32,
  total: f64,
  row: usize,
  marks: usize,
  scratch: usize,
): usize {
  const temperature = load<f64>(row);
  const topK = <usize> load<f64>(row, 8);
  const topP = load<f64>(row, 16);
  const penalty = load<f64>(row, 24);
  const histogram = scratch + sumBytes(V);
  const weights = weightsOf(scratch, V);
  const bytes = vectorBytes(V);
  const own = weights + bytes;
  const ids = own + bytes;
  const distances = ids + bytes;

  let scores = x;
  let peak = top;
  let weighed = temperature == 1;
  if (marks != 0 && penalty != 1) {
    penalise(x, V, marks, penalty, own);
    scores = own;
    peak = maximum(own, V);
    weighed = false;
  }
  if (temperature == 0 || topK == 1) return find(scores, V, peak);
  let n = V;
  let from: usize = 0;
  if (topK > 0 && topK < V) {
    const range = measure(scores, n, peak, distances);
    cut(distances, 0, n, range, histogram, <f64> topK);
    n = keep(scores, 0, n, peak, own, ids);
    scores = own;
    from = ids;
    weighed = false;
  }
  const factor = <f32> min(1 / temperature, LARGEST);
  if (!weighed) total = weigh(scores, n, peak, factor, weights, scratch);
  if (topP < 1) {
    const range = measure(scores, n, peak, distances);
    cut(distances, weights, n, range, histogram, topP);
    n = keep(scores, from, n, peak, own, ids);
    from = ids;
    total = weigh(own, n, peak, factor, weights, scratch);
  }
  const chosen = pick(weights, n, scratch, load<f64>(row, 32) * total);
  return from ? <usize> load<u32>(from + chosen * 4) : chosen;
}

/** The largest of n floats; NaN if one of them is. */
function maximum(x: usize, n: usize): f32 {
  let m0 = v128.load32_splat(x);
  let m1 = m0;
  let broken = zero();
  const whole = n & ~7;
  let p = x;
  for (const end = x + whole * 4; p < end; p += 32) {
    const v0 = v128.load(p);
    const v1 = v128.load(p, 16);
    m0 = f32x4.pmax(m0, v0);
    m1 = f32x4.pmax(m1, v1);
    broken = v128.or(broken, v128.or(f32x4.ne(v0, v0), f32x4.ne(v1, v1)));
  }
  let largest: f32 = v128.any_true(broken) ? <f32> NaN : maxLanes(f32x4.pmax(m0, m1));
  for (const end = x + n * 4; p < end; p += 4) largest = max(largest, load<f32>(p));
  return largest;
}

/** The first of n floats that is equal to one of them. */
function find(x: usize, n: usize, value: f32): usize {
  const wanted = f32x4.splat(value);
  let i: usize = 0;
  for (; i + 8 <= n; i += 8) {
    const p = x + i * 4;
    const hit = v128.or(f32x4.eq(v128.load(p), wanted), f32x4.eq(v128.load(p, 16), wanted));
    if (v128.any_true(hit)) break;
  }
  while (i + 1 < n && load<f32>(x + i * 4) != value) i++;
  return i;
}

/** out = x, but for tokens that were seen: positive scores divided by the penalty, others multiplied. */
function penalise(x: usize, V: usize, marks: usize, penalty: f64, out: usize): void {
  memory.copy(out, x, V * 4);
  for (let first: usize = 0; first < V; first += 32) {
    let word = load<u32>(marks + first / 8);
    for (; word != 0; word &= word - 1) {
      const token = first + ctz(word);
      if (token >= V) break;
      const score = <f64> load<f32>(x + token * 4);
      const changed = score > 0 ? score / penalty : score * penalty;
      store<f32>(out + token * 4, <f32> max(-LARGEST, min(LARGEST, changed)));
    }
  }
}

/**
 * weights = exp((scores − peak) · factor), if wanted, and the sum of each block of them, if wanted.
 *
 * @returns Their sum.
 */
function weigh(scores: usize, n: usize, peak: f32, factor: f32, weights: usize, sums: usize): f64 {
  const shift = f32x4.splat(peak);
  const scale = f32x4.splat(factor);
  let total: f64 = 0;
  for (let first: usize = 0; first < n; first += BLOCK) {
    const count = min(BLOCK, n - first);
    let p = scores + first * 4;
    let to = weights + first * 4;
    let s0 = zero();
    let s1 = zero();
    let i = count;
    for (; i >= 8; i -= 8, p += 32, to += 32) {
      const e0 = exp(f32x4.mul(f32x4.sub(v128.load(p), shift), scale));
      const e1 = exp(f32x4.mul(f32x4.sub(v128.load(p, 16), shift), scale));
      if (weights) {
        v128.store(to, e0);
        v128.store(to, e1, 16);
      }
      s0 = f32x4.add(s0, e0);
      s1 = f32x4.add(s1, e1);
    }
    for (; <isize> i > 0; i -= 4, p += 16, to += 16) {
      let e = exp(f32x4.mul(f32x4.sub(loadUpTo(p, i), shift), scale));
      e = v128.and(e, i32x4.gt_s(i32x4.splat(<i32> i), v128.load(LANES)));
      if (weights) storeUpTo(to, e, i);
      s0 = f32x4.add(s0, e);
    }
    const sum = <f64> sumLanes(f32x4.add(s0, s1));
    if (sums) store<f64>(sums + first / BLOCK * 8, sum);
    total += sum;
  }
  return total;
}

/** The first of n weights with which their sum exceeds `target`, else the last that is not 0. */
function pick(weights: usize, n: usize, sums: usize, target: f64): usize {
  let first: usize = 0;
  let left: f64 = Infinity;
  for (let block: usize = 0; block < n; block += BLOCK) {
    const sum = load<f64>(sums + block / BLOCK * 8);
    if (!(sum > 0)) continue;
    first = block;
    if (target < sum) {
      left = target;
      break;
    }
    target -= sum;
  }
  let chosen = first;
  for (let i = first; i < n; i++) {
    const weight = load<f32>(weights + i * 4);
    if (!(weight > 0)) continue;
    chosen = i;
    left -= <f64> weight;
    if (left < 0) break;
  }
  return chosen;
}

/** Floats as whole numbers in the same order, two neighbours being one apart; −0 is 0. */
// @ts-ignore: decorator
@inline
function rank(v: v128): v128 {
  v = f32x4.add(v, zero());
  return v128.xor(v, i32x4.shr_u(i32x4.shr_s(v, 31), 1));
}

/** distances = by how many floats each score lies below the peak; returns the largest. */
function measure(scores: usize, n: usize, peak: f32, distances: usize): u32 {
  const top = rank(f32x4.splat(peak));
  let largest = zero();
  for (let i: usize = 0; i < n; i += 4) {
    const at = i * 4;
    // What lies beyond the end is taken for the peak, at a distance of 0.
    let d = i32x4.sub(top, rank(loadUpTo(scores + at, n - i)));
    d = v128.and(d, i32x4.gt_s(i32x4.splat(<i32> (n - i)), v128.load(LANES)));
    v128.store(distances + at, d);
    largest = i32x4.max_u(largest, d);
  }
  return max<u32>(
    max<u32>(i32x4.extract_lane(largest, 0), i32x4.extract_lane(largest, 1)),
    max<u32>(i32x4.extract_lane(largest, 2), i32x4.extract_lane(largest, 3)),
  );
}

/** What a cut leaves: candidates nearer to the peak than this distance … */
let edge: u32 = 0;
/** … and so many of those that lie there, the first. */
let ties: f64 = 0;

/**
 * Finds the fewest candidates, the nearest to the peak first, that together have a share of all weight, or a
 * number of candidates. Each round looks at the next bits of those distances on which it hangs.
 *
 * @param distances (n), not to be used afterwards, nor `weights`.
 * @param weights (n), or 0: each candidate counts as 1.
 * @param range The largest distance.
 * @param wanted Which share, or how many.
 */
function cut(distances: usize, weights: usize, n: usize, range: u32, histogram: usize, wanted: f64): void {
  let shift = <u32> max<i32>(0, 32 - BITS - <i32> clz(range));
  let base: u32 = 0;
  let reached: f64 = 0;
  let missing = wanted;
  for (let round = 0;; round++) {
    memory.fill(histogram, 0, BUCKETS * 8);
    if (weights) {
      for (let at: usize = 0; at < n * 4; at += 4) {
        const bucket = histogram + <usize> ((load<u32>(distances + at) - base) >> shift) * 8;
        store<f64>(bucket, load<f64>(bucket) + <f64> load<f32>(weights + at));
      }
    } else {
      for (let at: usize = 0; at < n * 4; at += 4) {
        const bucket = histogram + <usize> ((load<u32>(distances + at) - base) >> shift) * 8;
        store<f64>(bucket, load<f64>(bucket) + 1);
      }
    }
    const last = histogram + min<usize>(BUCKETS - 1, (range - base) >> shift) * 8;
    if (weights != 0 && round == 0) {
      let total: f64 = 0;
      for (let at = histogram; at <= last; at += 8) total += load<f64>(at);
      wanted *= total;
    }
    let at = histogram;
    for (; at < last && reached + load<f64>(at) < wanted; at += 8) reached += load<f64>(at);
    const bucket = <u32> ((at - histogram) / 8);
    base += bucket << shift;
    n = collect(distances, weights, n, base, shift);
    if (shift == 0) break;
    shift = shift > BITS ? shift - BITS : 0;
  }
  edge = base;
  const weight: f64 = weights ? <f64> load<f32>(weights) : 1;
  ties = 0;
  for (; ties < <f64> n && reached < wanted; ties += 1) reached += weight;
}

/** Keeps the distances (and weights) that agree with `base` in the bits from `shift` on, in their order; returns how many. */
function collect(distances: usize, weights: usize, n: usize, base: u32, shift: u32): usize {
  const bucket = i32x4.splat(base >> shift);
  let kept: usize = 0;
  for (let i: usize = 0; i < n; i += 4) {
    const at = i * 4;
    const d = v128.load(distances + at);
    let hits = i32x4.bitmask(i32x4.eq(i32x4.shr_u(d, shift), bucket));
    if (i + 4 > n) hits &= (1 << <i32> (n - i)) - 1;
    for (; hits != 0; hits &= hits - 1) {
      const from = at + ctz(hits) * 4;
      store<u32>(distances + kept * 4, load<u32>(distances + from));
      if (weights) store<f32>(weights + kept * 4, load<f32>(weights + from));
      kept++;
    }
  }
  return kept;
}

/**
 * Lists the candidates that the last cut leaves.
 *
 * @param scores (n); `to` may be the same.
 * @param ids Theirs, or 0 where candidate i is token i; `toIds` may be the same.
 * @returns How many.
 */
function keep(scores: usize, ids: usize, n: usize, peak: f32, to: usize, toIds: usize): usize {
  const top = rank(f32x4.splat(peak));
  const most = i32x4.splat(edge);
  let kept: usize = 0;
  for (let i: usize = 0; i < n; i += 4) {
    const at = i * 4;
    const d = i32x4.sub(top, rank(loadUpTo(scores + at, n - i)));
    let hits = i32x4.bitmask(i32x4.le_u(d, most));
    if (i + 4 > n) hits &= (1 << <i32> (n - i)) - 1;
    if (hits == 0) continue;
    const tied = i32x4.bitmask(i32x4.eq(d, most));
    for (; hits != 0; hits &= hits - 1) {
      const lane = ctz(hits);
      if ((tied >> lane) & 1) {
        if (ties <= 0) continue;
        ties -= 1;
      }
      const j = i + lane;
      store<f32>(to + kept * 4, load<f32>(scores + j * 4));
      store<u32>(toIds + kept * 4, ids ? load<u32>(ids + j * 4) : <u32> j);
      kept++;
    }
  }
  return kept;
}
