// tokens[n] = the token chosen by logits[n], logProbs[n] = its log-probability; see `SampleArgs`. A row per
// workgroup, in passes over its logits, which all but the first find in a cache.
//
// Cuts look for the border between what stays and what goes by the bits of candidates' keys: a histogram of the
// next few bits of those keys that agree with the border so far says which come next. It adds whole numbers, so
// that the order of adding does not matter; they become floats afterwards. Sums are good to about 1e-6.
//#import index
//#import reduce

const THREADS = 256u;
// Ranks of −∞ and ∞; beyond lie those that are not numbers.
const LOWEST = 0x007fffffu;
const INFINITE = 0xff800000u;
const LARGEST = 3.4028234e38;
// A share that is reached but for rounding is reached.
const SLACK = 1e-6;

struct Params {
  N: u32,
  V: u32,
  // Words of a slot's set of seen tokens; 0 if there are none.
  words: u32,
  // Bits of each half of a weight in a histogram: V halves add up to less than 2³².
  half: u32,
}

struct Row {
  factor: f32, // 1 / temperature
  topK: u32, // 0: all; 1: greedy
  topP: f32,
  penalty: f32,
  draw: f32,
  slot: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>; // (N, V)
@group(0) @binding(2) var<storage, read> rows: array<Row>; // (N)
@group(0) @binding(3) var<storage, read_write> seen: array<u32>; // (slots, words)
@group(0) @binding(4) var<storage, read_write> tokens: array<u32>; // (N)
@group(0) @binding(5) var<storage, read_write> logProbs: array<u32>; // (N), the bits of floats

var<workgroup> largest: array<u32, THREADS>;
var<workgroup> before: array<f32, 16>;
var<workgroup> low: array<atomic<u32>, THREADS>;
var<workgroup> high: array<atomic<u32>, THREADS>;

// The row: its first logit, how its token is chosen, and the highest score.
var<private> first: u32;
var<private> row: Row;
var<private> peak: f32;
var<private> peakRank: u32;
// Candidates are tokens of scores less than `edge` below the peak, and those at the edge up to `lastTie`.
var<private> edge: u32;
var<private> lastTie: u32;

fn maxWord(thread: u32, value: u32) -> u32 {
  largest[thread] = value;
  workgroupBarrier();
  for (var half = THREADS / 2; half > 0; half /= 2) {
    if (thread < half) {
      largest[thread] = max(largest[thread], largest[thread + half]);
    }
    workgroupBarrier();
  }
  return workgroupUniformLoad(&largest[0]);
}

// partial[i] = the sum of the values of threads 0 … i. It never falls, and stays where a value is too small to
// count: first the sums of each sixteen in turn, then those before each sixteen.
fn addUp(thread: u32, value: f32) {
  partial[thread] = value;
  workgroupBarrier();
  if (thread % 16 == 0) {
    for (var i = thread + 1; i < thread + 16; i++) {
      partial[i] += partial[i - 1];
    }
  }
  workgroupBarrier();
  if (thread == 0) {
    var sum = 0.0;
    for (var i = 0u; i < THREADS / 16; i++) {
      before[i] = sum;
      sum += partial[i * 16 + 15];
    }
  }
  workgroupBarrier();
  partial[thread] += before[thread / 16];
  workgroupBarrier();
}

// Floats as whole numbers in the same order, neighbours being one apart; −0 is 0.
fn rankOf(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  return select(bits | 0x80000000u, ~bits, bits > 0x80000000u);
}

fn floatOf(rank: u32) -> f32 {
  return bitcast<f32>(select(~rank, rank & 0x7fffffffu, rank >= 0x80000000u));
}

fn scoreOf(v: u32) -> f32 {
  let x = logits[first + v];
  if (p.words == 0 || row.penalty == 1) {
    return x;
  }
  if (((seen[row.slot * p.words + v / 32] >> (v % 32)) & 1) == 0) {
    return x;
  }
  return clamp(select(x * row.penalty, x / row.penalty, x > 0), -LARGEST, LARGEST);
}

// How likely a token is, the likeliest having 1.
fn weightOf(score: f32) -> f32 {
  return min(exp(max((score - peak) * row.factor, -100.0)), 1.0);
}

fn isCandidate(below: u32, v: u32) -> bool {
  return below < edge || (below == edge && v <= lastTie);
}

struct Border {
  key: u32,
  // What lies at the border, and how much of it is wanted.
  there: f32,
  wanted: f32,
}

// How finely weights are counted: the largest is 2²ʰ but for its last bit, so that it fits into two halves.
fn unit() -> f32 {
  let half = f32(1u << p.half);
  return half * half * 0.99999994;
}

// The smallest key such that candidates up to it have an amount: a share of all weight, or a number of candidates.
// Keys, of at most `range`, are distances below the peak; or tokens, of the candidates at the edge.
fn border(thread: u32, ofTokens: bool, range: u32, weighted: bool, amount: f32) -> Border {
  let mask = (1u << p.half) - 1;
  var wanted = amount;
  var there = 0.0;
  var key = 0u;
  var width = range; // keys up to key + width agree so far
  var shift = u32(max(24 - i32(countLeadingZeros(range)), 0));
  for (var round = 0u; round < 4; round++) {
    atomicStore(&low[thread], 0u);
    atomicStore(&high[thread], 0u);
    workgroupBarrier();
    for (var v = thread; v < p.V; v += THREADS) {
      let score = scoreOf(v);
      let below = peakRank - rankOf(score);
      let at = select(below, v, ofTokens) - key;
      if (!isCandidate(below, v) || (ofTokens && below != edge) || at > width) {
        continue;
      }
      if (weighted) {
        let weight = u32(weightOf(score) * unit());
        atomicAdd(&low[at >> shift], weight & mask);
        atomicAdd(&high[at >> shift], weight >> p.half);
      } else {
        atomicAdd(&low[at >> shift], 1u);
      }
    }
    workgroupBarrier();
    let own = f32(atomicLoad(&low[thread])) + f32(atomicLoad(&high[thread])) * f32(1u << p.half);
    addUp(thread, own);
    if (weighted && round == 0) {
      wanted = amount * partial[THREADS - 1];
    }
    let last = min(width >> shift, THREADS - 1);
    let reached = thread >= last || partial[thread] >= wanted * select(1.0, 1 - SLACK, weighted);
    let bucket = THREADS - maxWord(thread, select(0u, THREADS - thread, reached));
    there = bitcast<f32>(maxWord(thread, select(0u, bitcast<u32>(own), thread == bucket)));
    if (bucket > 0) {
      wanted -= workgroupUniformLoad(&partial[bucket - 1]);
    }
    key += bucket << shift;
    if (shift == 0) {
      break;
    }
    width = (1u << shift) - 1;
    shift = u32(max(i32(shift) - 8, 0));
  }
  return Border(key, there, wanted);
}

// Leaves the fewest candidates, those of the highest scores, that have a share of all weight, or that are so many.
fn cut(thread: u32, range: u32, weighted: bool, amount: f32) {
  let at = border(thread, false, range, weighted, amount);
  if (at.key < edge) {
    edge = at.key;
    lastTie = p.V;
  }
  var weight = 1.0;
  var kept = at.wanted;
  if (weighted) {
    weight = max(floor(weightOf(floatOf(peakRank - edge)) * unit()), 1.0);
    kept = ceil(at.wanted / weight * (1 - SLACK));
  }
  let ties = round(at.there / weight);
  if (kept < ties) {
    lastTie = border(thread, true, p.V - 1, false, max(kept, 1.0)).key;
  }
}

// The likeliest token, the first of equals.
fn likeliest(thread: u32) -> u32 {
  var token = 0xffffffffu;
  for (var v = thread; v < p.V && token == 0xffffffffu; v += THREADS) {
    if (rankOf(scoreOf(v)) == peakRank) {
      token = v;
    }
  }
  return ~maxWord(thread, ~token);
}

// The candidate in whose part of the sum of weights the draw falls. Each thread has the tokens of one stretch.
fn drawn(thread: u32) -> u32 {
  let stretch = (p.V + THREADS - 1) / THREADS;
  let begin = min(thread * stretch, p.V);
  let end = min(begin + stretch, p.V);
  var own = 0.0;
  for (var v = begin; v < end; v++) {
    let score = scoreOf(v);
    if (isCandidate(peakRank - rankOf(score), v)) {
      own += weightOf(score);
    }
  }
  addUp(thread, own);
  let total = partial[THREADS - 1];
  let mark = min(row.draw * total, bitcast<f32>(bitcast<u32>(total) - 1));
  let owner = THREADS - maxWord(thread, select(0u, THREADS - thread, partial[thread] > mark));
  var token = 0u;
  if (thread == owner) {
    var base = 0.0;
    if (thread > 0) {
      base = partial[thread - 1];
    }
    var reached = -1.0;
    var sum = 0.0;
    for (var v = begin; v < end && reached <= mark; v++) {
      let score = scoreOf(v);
      if (isCandidate(peakRank - rankOf(score), v)) {
        sum += weightOf(score);
        if (base + sum > reached) {
          reached = base + sum;
          token = v;
        }
      }
    }
  }
  return maxWord(thread, token);
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let n = linear(group, groups);
  if (n >= p.N) {
    return;
  }
  row = rows[n];
  first = n * p.V;
  var top = 0u;
  for (var v = thread; v < p.V; v += THREADS) {
    let rank = rankOf(logits[first + v]);
    top = max(top, select(rank, INFINITE, rank < LOWEST));
  }
  top = maxWord(thread, top);
  var token = 0u;
  var logProb = 0x7fc00000u; // NaN
  if (top > LOWEST && top < INFINITE) {
    let topLogit = floatOf(top);
    var sum = 0.0;
    var highest = 0u;
    var lowest = 0xffffffffu;
    for (var v = thread; v < p.V; v += THREADS) {
      sum += exp(max(logits[first + v] - topLogit, -100.0));
      let rank = rankOf(scoreOf(v));
      highest = max(highest, rank);
      lowest = min(lowest, rank);
    }
    sum = sumAcross(thread, sum);
    peakRank = maxWord(thread, highest);
    peak = floatOf(peakRank);
    let range = peakRank - ~maxWord(thread, ~lowest);
    edge = 0xffffffffu;
    lastTie = p.V;
    let topK = rows[n].topK;
    if (topK == 1) {
      token = likeliest(thread);
    } else {
      if (topK > 0 && topK < p.V) {
        cut(thread, range, false, f32(topK));
      }
      if (rows[n].topP < 1) {
        cut(thread, range, true, row.topP);
      }
      token = drawn(thread);
    }
    logProb = bitcast<u32>(logits[first + token] - topLogit - log(sum));
  }
  token = min(token, p.V - 1);
  // All have read what was seen.
  storageBarrier();
  workgroupBarrier();
  if (thread == 0) {
    tokens[n] = token;
    logProbs[n] = logProb;
    if (p.words > 0) {
      seen[row.slot * p.words + token / 32] |= 1u << (token % 32);
    }
  }
}
