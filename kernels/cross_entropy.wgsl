// loss[n] = log Σ exp(logits[n]) − logits[n, targets[n]], and, if wanted, the logits replaced by their
// gradient (softmax − onehot) · scale. A row per workgroup; one pass for the maximum and the sum,
// rescaled whenever a larger maximum turns up (Milakov & Gimelshein 2018), one for the gradient.
//#import index
//#import reduce

const THREADS = u32($THREADS);

struct Params {
  N: u32,
  V: u32,
  wantsGradient: u32,
  scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> targets: array<u32>; // (N)
@group(0) @binding(2) var<storage, read_write> logits: array<f32>; // (N, V)
@group(0) @binding(3) var<storage, read_write> loss: array<f32>; // (N)

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
  let row = n * p.V;
  var largest = -3.4e38;
  var sum = 0.0;
  for (var v = thread; v < p.V; v += THREADS * 4) {
    // Four at once, that memory be asked for all of them before the first is needed.
    var four = vec4f(-3.4e38);
    //#for j in 0..4
    if (v + $j * THREADS < p.V) {
      four[$j] = logits[row + v + $j * THREADS];
    }
    //#end
    let peak = max(max(max(four.x, four.y), max(four.z, four.w)), largest);
    sum *= exp(largest - peak);
    largest = peak;
    //#for j in 0..4
    sum += select(0.0, exp(four[$j] - peak), v + $j * THREADS < p.V);
    //#end
  }
  let maximum = maxAcross(thread, largest);
  sum = sumAcross(thread, sum * exp(largest - maximum));
  // Read before any thread overwrites it with its gradient.
  let answer = targets[n];
  if (thread == 0) {
    loss[n] = log(sum) - (logits[row + answer] - maximum);
  }
  if (p.wantsGradient == 0) {
    return;
  }
  storageBarrier();
  workgroupBarrier();
  let share = 1.0 / sum;
  for (var v = thread; v < p.V; v += THREADS * 4) {
    //#for j in 0..4
    let v$j = v + $j * THREADS;
    if (v$j < p.V) {
      let probability = exp(logits[row + v$j] - maximum) * share;
      logits[row + v$j] = select(probability, probability - 1.0, v$j == answer) * p.scale;
    }
    //#end
  }
}
