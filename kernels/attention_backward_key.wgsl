// The keys' and values' part of dQkv: a workgroup takes 32 keys of one head through the queries that see
// them; dValue = Σ over queries of probability · dOut, dKey = Σ of dLogit · scale · query.
//#import attention_tiles

struct Params {
  T: u32,
  H: u32,
  scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(3) var<storage, read> ends: array<u32>; // (T)
@group(0) @binding(4) var<storage, read> logSumExp: array<f32>; // (T, H)
@group(0) @binding(5) var<storage, read> delta: array<f32>; // (T, H)
@group(0) @binding(6) var<storage, read_write> dQkv: array<$ELEMENT>; // (T, 3C)

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let tx = thread & 7;
  let ty = thread >> 3;
  let head = group.y;
  let C = p.H * D;
  let k0 = group.x * 32;
  let row = k0 + ty; // and every eighth after it
  var end = vec4u();
  //#for i in 0..4
  if (row + 8 * $i < p.T) {
    end[$i] = ends[row + 8 * $i];
  }
  //#end

  hold(0, KEY, k0, head, thread);
  hold(1, VALUE, k0, head, thread);
  var dKey: array<mat4x4f, $CHUNKS>;
  var dValue: array<mat4x4f, $CHUNKS>;
  let last = ends[min(k0 + 31, p.T - 1)];
  for (var q0 = k0; q0 < last; q0 += 32) {
    let query = vec4u(q0 + tx * 4) + vec4u(0, 1, 2, 3);
    var lse = vec4f();
    var mean = vec4f();
    //#for i in 0..4
    if (query[$i] < p.T) {
      lse[$i] = logSumExp[query[$i] * p.H + head];
      mean[$i] = delta[query[$i] * p.H + head];
    }
    //#end
    var weights = p.scale * product(0, KEY, k0, QUERY, q0, head, thread);
    //#for i in 0..4
    weights[$i] = select(vec4f(), exp(weights[$i] - lse), within(query + 1, row + 8 * $i + 1, end[$i]));
    //#end
    setWeights(weights, thread);
    //#for c in 0..CHUNKS
    dValue[$c] += weigh(GRADIENT, q0, head, $c * 32, thread);
    //#end
    let gradients = product(1, VALUE, k0, GRADIENT, q0, head, thread);
    //#for i in 0..4
    weights[$i] *= (gradients[$i] - mean) * p.scale;
    //#end
    setWeights(weights, thread);
    //#for c in 0..CHUNKS
    dKey[$c] += weigh(QUERY, q0, head, $c * 32, thread);
    //#end
  }

  //#for i in 0..4
  if (row + 8 * $i < p.T) {
    //#for c in 0..CHUNKS
    store(((row + 8 * $i) * 3 + KEY) * C + head * D, $c * 32 + tx * 4, dKey[$c][$i]);
    store(((row + 8 * $i) * 3 + VALUE) * C + head * D, $c * 32 + tx * 4, dValue[$c][$i]);
    //#end
  }
  //#end
}
