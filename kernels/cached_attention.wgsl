// Attention of each new token over its slot's keys and values up to its own position: a workgroup per
// token and head, 64 keys at a time with the softmax online, a thread per key and then per element.
//#import reduce

const THREADS = 64u;
const D = u32($D); // at most 128

struct Params {
  H: u32,
  positionsPerSlot: u32,
  scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> qkv: array<f32>; // (T, 3C)
@group(0) @binding(2) var<storage, read> slots: array<u32>; // (T)
@group(0) @binding(3) var<storage, read> positions: array<u32>; // (T)
// (slots, n_positions, W): W is C, or ⌈C / 2⌉ with two halves to a word.
@group(0) @binding(4) var<storage, read> keys: array<$WORD>;
@group(0) @binding(5) var<storage, read> values: array<$WORD>;
@group(0) @binding(6) var<storage, read_write> out: array<f32>; // (T, C)

const NOTHING = -1e30;

var<workgroup> query: array<f32, D>;
var<workgroup> weights: array<f32, 64>;

//#if HALF
fn halfOf(word: u32, c: u32) -> f32 {
  let pair = unpack2x16float(word);
  return select(pair.x, pair.y, c % 2 == 1);
}

fn value(place: u32, c: u32) -> f32 {
  return halfOf(values[place * ((p.H * D + 1) / 2) + c / 2], c);
}

// query · key
fn score(place: u32, head: u32) -> f32 {
  let row = place * ((p.H * D + 1) / 2);
  var sum = 0.0;
//#if EVEN
  for (var d = 0u; d < D; d += 2) {
    sum += dot(vec2f(query[d], query[d + 1]), unpack2x16float(keys[row + (head * D + d) / 2]));
  }
//#else
  for (var d = 0u; d < D; d++) {
    let c = head * D + d;
    sum += query[d] * halfOf(keys[row + c / 2], c);
  }
//#end
  return sum;
}
//#else
fn value(place: u32, c: u32) -> f32 {
  return values[place * p.H * D + c];
}

// query · key
fn score(place: u32, head: u32) -> f32 {
  var sum = 0.0;
  for (var d = 0u; d < D; d++) {
    sum += query[d] * keys[(place * p.H + head) * D + d];
  }
  return sum;
}
//#end

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let t = group.x;
  let head = group.y;
  let C = p.H * D;
  let slot = slots[t] * p.positionsPerSlot;
  let count = positions[t] + 1;
  for (var d = thread; d < D; d += THREADS) {
    query[d] = p.scale * qkv[t * 3 * C + head * D + d];
  }
  workgroupBarrier();

  var largest = NOTHING;
  var total = 0.0;
  var sums = vec2f(); // of elements `thread` and `thread` + 64
  for (var k0 = 0u; k0 < count; k0 += 64) {
    var logit = NOTHING;
    if (k0 + thread < count) {
      logit = score(slot + k0 + thread, head);
    }
    let peak = max(largest, maxAcross(thread, logit));
    let weight = select(0.0, exp(logit - peak), k0 + thread < count);
    weights[thread] = weight;
    let rescale = exp(largest - peak);
    largest = peak;
    total = total * rescale + sumAcross(thread, weight);
    sums *= rescale;
    for (var j = 0u; j < min(64, count - k0); j++) {
      if (thread < D) {
        sums.x += weights[j] * value(slot + k0 + j, head * D + thread);
      }
      if (thread + 64 < D) {
        sums.y += weights[j] * value(slot + k0 + j, head * D + thread + 64);
      }
    }
    workgroupBarrier();
  }
  let i = t * C + head * D + thread;
  if (thread < D) {
    out[i] = sums.x / total;
  }
  if (thread + 64 < D) {
    out[i + 64] = sums.y / total;
  }
}
