// Causal self-attention within sequences, softmax online, no [T, T] anywhere (FlashAttention-2, Dao
// 2023): a workgroup takes 32 queries of one head through the keys before them, 32 at a time. CACHED are queries that lie
// slot by slot, in runs, and see their slot's keys in the cache, where their own are stored by now.
//#import attention_tiles

struct Params {
  T: u32,
  H: u32,
  scale: f32,
//#if CACHED
  perSlot: u32,
//#end
}

@group(0) @binding(0) var<uniform> p: Params;
//#if CACHED
@group(0) @binding(2) var<storage, read> slots: array<u32>; // (T)
@group(0) @binding(3) var<storage, read> positions: array<u32>; // (T)
@group(0) @binding(4) var<storage, read> keys: array<$CACHED>; // (slots, n_positions, C)
@group(0) @binding(5) var<storage, read> values: array<$CACHED>; // (slots, n_positions, C)
//#else
@group(0) @binding(3) var<storage, read> starts: array<u32>; // (T)
@group(0) @binding(4) var<storage, read_write> logSumExp: array<f32>; // (T, H)
//#end
@group(0) @binding(6) var<storage, read_write> out: array<$ELEMENT>; // (T, C)

const NOTHING = -1e30;

var<workgroup> shared4: array<vec4f, 64>; // (8, 8)

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let tx = thread & 7;
  let ty = thread >> 3;
  let head = group.y;
  let C = p.H * D;
  let q0 = group.x * 32;
  let row = q0 + ty; // and every eighth after it
  let rows = min(q0 + 32, p.T);
  // What each row sees, if anything.
  var first = vec4u(1);
  var last = vec4u();
//#if !CACHED
  //#for i in 0..4
  if (row + 8 * $i < rows) {
    first[$i] = starts[row + 8 * $i];
    last[$i] = row + 8 * $i;
  }
  //#end
//#end

  var sums: array<mat4x4f, $CHUNKS>; // Σ exp(logit − largest) · value, a row per column of the matrix
  var largest = vec4f(NOTHING); // of each row's logits so far
  var total = vec4f(); // Σ exp(logit − largest) of each row, over this thread's columns
  hold(0, QUERY, q0, head, thread);
//#if CACHED
  var run = q0;
  while (run < rows) { // around the loop over keys, which is every variant's
    var next = run + 1;
    while (next < rows && slots[next] == slots[run]) {
      next++;
    }
    //#for i in 0..4
    let own$i = row + 8 * $i >= run && row + 8 * $i < next;
    first[$i] = select(1u, 0u, own$i);
    last[$i] = select(0u, positions[min(row + 8 * $i, rows - 1)], own$i);
    //#end
    let begin = 0u;
    let end = positions[next - 1] + 1;
    slot = slots[run];
    slotKeys = end;
    run = next;
//#else
  let begin = starts[q0];
  let end = rows;
//#end
  for (var k0 = begin; k0 < end; k0 += 32) {
    var logits = p.scale * product(0, QUERY, q0, KEY, k0, head, thread);
    //#import attention_softmax
  }
//#if CACHED
  }
//#end

  //#import attention_totals
  //#for i in 0..4
  if (row + 8 * $i < p.T) {
//#if !CACHED
    if (tx == 0) {
      logSumExp[(row + 8 * $i) * p.H + head] = largest[$i] + log(total[$i]);
    }
//#end
    //#for c in 0..CHUNKS
    store((row + 8 * $i) * C + head * D, $c * 32 + tx * 4, sums[$c][$i] / total[$i]);
    //#end
  }
  //#end
}
