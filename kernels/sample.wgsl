// tokens[n] = the token chosen by logits[n], logProbs[n] = its log-probability; see `SampleArgs`. A row per
// workgroup, out of what `sample_parts` found; unless the likeliest is wanted, in passes over its logits, which lie in a
// cache by now.
//
// Cuts look for the border between what stays and what goes by the bits of candidates' keys: a histogram of the
// next few bits of those keys that agree with the border so far says which come next. It adds whole numbers, so
// that the order of adding does not matter; they become floats afterwards. Sums are good to about 1e-6.
//#import index
//#import sample_row
//#import max_word
//#import reduce

const BITS = u32($BITS); // of a histogram's buckets, one for each thread
const THREADS = 1u << BITS;
const GROUP = 1u << (BITS / 2);
// A share that is reached but for rounding is reached.
const SLACK = 1e-6;

struct Params {
  N: u32,
  V: u32,
  // Words of a slot's set of seen tokens; 0 if there are none.
  words: u32,
  // Bits of each half of a weight in a histogram: V halves add up to less than 2³².
  half: u32,
  // Parts of a row.
  parts: u32,
//#if SINGLE
  factor: f32,
  topK: u32,
  topP: f32,
  penalty: f32,
  draw: f32,
  slot: u32,
//#end
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>; // (N, V)
//#if !SINGLE
@group(0) @binding(2) var<storage, read> rows: array<Row>; // (N)
//#end
@group(0) @binding(3) var<storage, read_write> seen: array<u32>; // (slots, words)
@group(0) @binding(4) var<storage, read> parts: array<Part>; // (N, p.parts)
@group(0) @binding(5) var<storage, read_write> tokens: array<u32>; // (N)
@group(0) @binding(6) var<storage, read_write> logProbs: array<u32>; // (N), the bits of floats

var<workgroup> before: array<f32, THREADS / GROUP>;
var<workgroup> low: array<atomic<u32>, THREADS>;
var<workgroup> high: array<atomic<u32>, THREADS>;

// The highest score.
var<private> peak: f32;
var<private> peakRank: u32;
// Candidates are tokens of scores less than `edge` below the peak, and those at the edge up to `lastTie`.
var<private> edge: u32;
var<private> lastTie: u32;

// partial[i] = the sum of the values of threads 0 … i. It never falls, and stays where a value is too small to
// count: first the sums within each group in turn, then those before each group.
fn addUp(thread: u32, value: f32) {
  partial[thread] = value;
  workgroupBarrier();
  if (thread % GROUP == 0) {
    for (var i = thread + 1; i < thread + GROUP; i++) {
      partial[i] += partial[i - 1];
    }
  }
  workgroupBarrier();
  if (thread == 0) {
    var sum = 0.0;
    for (var i = 0u; i < THREADS / GROUP; i++) {
      before[i] = sum;
      sum += partial[i * GROUP + GROUP - 1];
    }
  }
  workgroupBarrier();
  partial[thread] += before[thread / GROUP];
  workgroupBarrier();
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

// Counts a candidate whose key lies from `key` to key + width, in its bucket.
fn tally(v: u32, score: f32, ofTokens: bool, weighted: bool, key: u32, width: u32, shift: u32) {
  let below = peakRank - rankOf(score);
  let at = select(below, v, ofTokens) - key;
  if (!isCandidate(below, v) || (ofTokens && below != edge) || at > width) {
    return;
  }
  if (weighted) {
    let weight = u32(weightOf(score) * unit());
    if (weight > 0) {
      atomicAdd(&low[at >> shift], weight & ((1u << p.half) - 1));
      atomicAdd(&high[at >> shift], weight >> p.half);
    }
  } else {
    atomicAdd(&low[at >> shift], 1u);
  }
}

// The smallest key such that candidates up to it have an amount: a share of all weight, or a number of candidates.
// Keys, of at most `range`, are distances below the peak; or tokens, of the candidates at the edge.
fn border(thread: u32, ofTokens: bool, range: u32, weighted: bool, amount: f32) -> Border {
  var wanted = amount;
  var there = 0.0;
  var key = 0u;
  var width = range; // keys up to key + width agree so far
  var shift = u32(max(i32(32 - BITS) - i32(countLeadingZeros(range)), 0));
  for (var round = 0u; round < 4; round++) { // at least 8 bits each
    atomicStore(&low[thread], 0u);
    atomicStore(&high[thread], 0u);
    workgroupBarrier();
    for (var v = thread; v < p.V; v += THREADS * 4) {
      // Four at once, that memory be asked for all of them before the first is needed.
      //#for j in 0..4
      let score$j = scoreOf(min(v + $j * THREADS, p.V - 1));
      //#end
      //#for j in 0..4
      if (v + $j * THREADS < p.V) {
        tally(v + $j * THREADS, score$j, ofTokens, weighted, key, width, shift);
      }
      //#end
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
    shift = u32(max(i32(shift) - i32(BITS), 0));
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
  // All threads come to the same; browsers want it in writing.
  if (maxWord(thread, u32(kept < ties)) == 1) {
    lastTie = border(thread, true, p.V - 1, false, max(kept, 1.0)).key;
  }
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
  row = rowOf(n);
  first = n * p.V;
  var top = 0u;
  var highest = 0u;
  var lowest = 0xffffffffu;
  var leastHighest = 0xffffffffu; // of a part
  for (var i = thread; i < p.parts; i += THREADS) {
    let part = parts[n * p.parts + i];
    top = max(top, part.top);
    highest = max(highest, part.highest);
    lowest = min(lowest, part.lowest);
    leastHighest = min(leastHighest, part.highest);
  }
  top = maxWord(thread, top);
  var token = 0u;
  var logProb = 0x7fc00000u; // NaN
  if (top > LOWEST && top < INFINITE) {
    let topLogit = floatOf(top);
    let highestRank = maxWord(thread, highest);
    peakRank = highestRank;
    peak = floatOf(peakRank);
    var sum = 0.0;
    token = 0xffffffffu;
    for (var i = thread; i < p.parts; i += THREADS) {
      let part = parts[n * p.parts + i];
      if (part.top > LOWEST) {
        sum += part.sum * exp(max(floatOf(part.top) - topLogit, -100.0));
      }
      token = select(token, min(token, part.token), part.highest == peakRank);
    }
    sum = sumAcross(thread, sum);
    token = ~maxWord(thread, ~token);
    edge = 0xffffffffu;
    lastTie = p.V;
    let topK = rowOf(n).topK;
    if (topK != 1) {
      var range = highestRank - ~maxWord(thread, ~lowest);
      if (topK > 0 && topK < p.V) {
        if (topK <= p.parts) {
          // So many parts have a token at least as high as this: no border lies below.
          range = highestRank - ~maxWord(thread, ~leastHighest);
          edge = range;
        }
        cut(thread, range, false, f32(topK));
      }
      if (rowOf(n).topP < 1) {
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
