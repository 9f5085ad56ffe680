// What each stretch of a row's tokens comes to, a workgroup to a stretch: with that the likeliest token is found without
// another look at the logits. See `SampleArgs`.
//#import index
//#import sample_row
//#import max_word
//#import reduce

const THREADS = 256u;
// Of a stretch; $EACH for each thread.
const STRETCH = THREADS * u32($EACH);

struct Params {
  N: u32,
  V: u32,
  // Words of a slot's set of seen tokens; 0 if there are none.
  words: u32,
  // Stretches of a row.
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
@group(0) @binding(3) var<storage, read> seen: array<u32>; // (slots, words)
@group(0) @binding(4) var<storage, read_write> parts: array<Part>; // (N, p.parts)

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = linear(group, groups);
  if (i >= p.N * p.parts) {
    return;
  }
  let n = i / p.parts;
  row = rowOf(n);
  first = n * p.V;
  let start = i % p.parts * STRETCH + thread;
  var top = 0u;
  var highest = 0u;
  var lowest = 0xffffffffu;
  var token = 0xffffffffu;
  //#for j in 0..EACH
  let v$j = start + $j * THREADS;
  var x$j = 0.0;
  if (v$j < p.V) {
    x$j = logits[first + v$j];
    let rank = rankOf(x$j);
    top = max(top, select(rank, INFINITE, rank < LOWEST));
    let score = rankOf(scored(v$j, x$j));
    if (score > highest) {
      highest = score;
      token = v$j;
    }
    lowest = min(lowest, score);
  }
  //#end
  var part: Part;
  part.top = maxWord(thread, top);
  part.highest = maxWord(thread, highest);
  part.lowest = ~maxWord(thread, ~lowest);
  part.token = ~maxWord(thread, select(0u, ~token, highest == part.highest));
  var sum = 0.0;
  if (part.top > LOWEST && part.top < INFINITE) {
    //#for j in 0..EACH
    sum += select(0.0, exp(max(x$j - floatOf(part.top), -100.0)), v$j < p.V);
    //#end
  }
  part.sum = sumAcross(thread, sum);
  if (thread == 0) {
    parts[i] = part;
  }
}
