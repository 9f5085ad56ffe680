// Attention of a few new tokens over their slots, a workgroup to a token and head, as many keys at a time as it has
// threads, the softmax online: a thread per key and then per four elements of some of the values. The new tokens' keys and
// values come from `qkv`, for they are only being stored. SPLIT, over long contexts (Flash-Decoding, Dao et al. 2023), has
// workgroups for stretches of the positions, whose results `cached_attention_merge` adds up.
//#import cache_write
//#import reduce

const THREADS = u32($THREADS);
const QUADS = u32($QUADS); // D / 4, rounded up
const LANES = u32($LANES); // the next power of two
const NOTHING = -1e30;
// In a key's source: it is this row of `qkv`, not this place of the cache.
const NEW = 0x80000000u;

struct Params {
  H: u32,
  perSlot: u32,
  // What `write` takes for a row.
  W: u32,
  // Positions of a workgroup, and how many workgroups that makes.
  stretch: u32,
  parts: u32,
  scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> slots: array<u32>; // (T)
@group(0) @binding(3) var<storage, read> positions: array<u32>; // (T)
@group(0) @binding(4) var<storage, read_write> keys: array<$CACHED>; // (slots, n_positions, C)
@group(0) @binding(5) var<storage, read_write> values: array<$CACHED>; // (slots, n_positions, C)
//#if SPLIT
// (T, H, parts, QUADS + 1): Σ exp(logit − largest) · value; the largest, Σ exp(logit − largest).
@group(0) @binding(6) var<storage, read_write> sums: array<vec4f>;
//#else
@group(0) @binding(6) var<storage, read_write> out: array<$ELEMENT>; // (T, C)
//#end

var<workgroup> query: array<vec4f, QUADS>;
var<workgroup> weights: array<f32, THREADS>;
var<workgroup> sources: array<u32, THREADS>;
var<workgroup> quads: array<vec4f, THREADS>;

fn source4(what: u32, source: u32, head: u32, d: u32) -> vec4f {
  if (source >= NEW) {
    return stored(qkv4(source - NEW, what, head, d));
  }
  return cached4(what, source, head, d);
}

// query · key
fn score(source: u32, head: u32) -> f32 {
  var sum = 0.0;
//#if VECTORS
  if (source < NEW) {
    for (var q = 0u; q < QUADS; q += 4) {
      //#for u in 0..4
      if (q + $u < QUADS) {
        sum += dot(query[q + $u], cached4(KEY, source, head, (q + $u) * 4));
      }
      //#end
    }
    return sum;
  }
//#end
  for (var q = 0u; q < QUADS; q++) {
    sum += dot(query[q], source4(KEY, source, head, q * 4));
  }
  return sum;
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let t = group.y / p.H;
  let head = group.y % p.H;
  let slot = slots[t];
  let begin = group.x * p.stretch;
  let end = min(begin + p.stretch, positions[t] + 1);
  if (begin >= end) {
    return;
  }
  if (thread < QUADS) {
    query[thread] = p.scale * qkv4(t, QUERY, head, thread * 4);
  }
  if (end == positions[t] + 1) {
    // Nobody reads this place here. Each head has an even share of the row, wherever it begins.
    let place = placeOf(slot, positions[t]);
    for (var i = (head * p.W) / p.H + thread; i < ((head + 1) * p.W) / p.H; i += THREADS) {
      write(t, place, i);
    }
  }
  workgroupBarrier();

  var largest = NOTHING;
  var total = 0.0; // Σ exp(logit − largest) of this thread's keys
  var sum = vec4f(); // of elements 4 · quad … 4 · quad + 3, over this thread's values
  let quad = thread % LANES;
  for (var k0 = begin; k0 < end; k0 += THREADS) {
    let key = k0 + thread;
    let isKey = key < end;
    var logit = NOTHING;
    if (isKey) {
      var source = placeOf(slot, key);
      for (var row = 0u; row <= t; row++) {
        if (slots[row] == slot && positions[row] == key) {
          source = NEW + row;
        }
      }
      sources[thread] = source;
      logit = score(source, head);
    }
    let peak = max(largest, maxAcross(thread, logit));
    let weight = select(0.0, exp(logit - peak), isKey);
    weights[thread] = weight;
    let rescale = exp(largest - peak);
    largest = peak;
    total = total * rescale + weight;
    sum *= rescale;
    workgroupBarrier();
    let count = min(end - k0, THREADS);
    if (quad < QUADS) {
      for (var j = thread / LANES; j < count; j += THREADS / LANES * 4) {
        //#for u in 0..4
        let j$u = j + THREADS / LANES * $u;
        if (j$u < count) {
          sum += weights[j$u] * source4(VALUE, sources[j$u], head, quad * 4);
        }
        //#end
      }
    }
    workgroupBarrier();
  }

  quads[thread] = sum;
  total = sumAcross(thread, total);
  for (var half = THREADS / 2; half >= LANES; half /= 2) {
    if (thread < half) {
      quads[thread] += quads[thread + half];
    }
    workgroupBarrier();
  }
//#if SPLIT
  let at = (group.y * p.parts + group.x) * (QUADS + 1);
  if (thread < QUADS) {
    sums[at + thread] = quads[thread];
  }
  if (thread == 0) {
    sums[at + QUADS] = vec4f(largest, total, 0, 0);
  }
//#else
  if (thread < QUADS) {
    let i = (t * p.H + head) * D + thread * 4;
    let mean = quads[thread] / total;
//#if VECTORS
    out[i / 4] = mean;
//#else
    for (var j = 0u; j < min(D - thread * 4, 4u); j++) {
      out[i + j] = mean[j];
    }
//#end
  }
//#end
}
