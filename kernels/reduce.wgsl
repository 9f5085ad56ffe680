// Sums and maxima over the THREADS threads of a workgroup (a power of two, defined by the including
// file), in an order that never changes. Every thread gets the result.

var<workgroup> partial: array<f32, THREADS>;
//#if PAIRS
var<workgroup> partials: array<vec2f, THREADS>;
//#end
//#if SUBGROUPS

// Whatever subgroups there are, however many threads each has and whichever: every thread leaves its subgroup's result,
// of a sum the first alone; then each subgroup goes through all that was left. Threads that come out of a loop at different
// times may make several subgroups of one until the barrier: lanes are counted anew behind it.

fn sumAcross(thread: u32, value: f32) -> f32 {
  let own = subgroupAdd(value);
  partial[thread] = select(0.0, own, subgroupExclusiveAdd(1u) == 0);
  workgroupBarrier();
  let lane = subgroupExclusiveAdd(1u);
  let width = subgroupAdd(1u);
  var sum = 0.0;
  for (var i = lane; i < THREADS; i += width) {
    sum += partial[i];
  }
  workgroupBarrier();
  return subgroupAdd(sum);
}

fn maxAcross(thread: u32, value: f32) -> f32 {
  partial[thread] = subgroupMax(value);
  workgroupBarrier();
  let lane = subgroupExclusiveAdd(1u);
  let width = subgroupAdd(1u);
  var largest = partial[lane];
  for (var i = lane + width; i < THREADS; i += width) {
    largest = max(largest, partial[i]);
  }
  workgroupBarrier();
  return subgroupMax(largest);
}
//#if PAIRS

fn sumPairsAcross(thread: u32, value: vec2f) -> vec2f {
  let own = subgroupAdd(value);
  partials[thread] = select(vec2f(), own, subgroupExclusiveAdd(1u) == 0);
  workgroupBarrier();
  let lane = subgroupExclusiveAdd(1u);
  let width = subgroupAdd(1u);
  var sum = vec2f();
  for (var i = lane; i < THREADS; i += width) {
    sum += partials[i];
  }
  workgroupBarrier();
  return subgroupAdd(sum);
}
//#end
//#else

fn sumAcross(thread: u32, value: f32) -> f32 {
  partial[thread] = value;
  workgroupBarrier();
  for (var half = THREADS / 2; half > 0; half /= 2) {
    if (thread < half) {
      partial[thread] += partial[thread + half];
    }
    workgroupBarrier();
  }
  let sum = partial[0];
  workgroupBarrier();
  return sum;
}

fn maxAcross(thread: u32, value: f32) -> f32 {
  partial[thread] = value;
  workgroupBarrier();
  for (var half = THREADS / 2; half > 0; half /= 2) {
    if (thread < half) {
      partial[thread] = max(partial[thread], partial[thread + half]);
    }
    workgroupBarrier();
  }
  let largest = partial[0];
  workgroupBarrier();
  return largest;
}
//#if PAIRS

fn sumPairsAcross(thread: u32, value: vec2f) -> vec2f {
  partials[thread] = value;
  workgroupBarrier();
  for (var half = THREADS / 2; half > 0; half /= 2) {
    if (thread < half) {
      partials[thread] += partials[thread + half];
    }
    workgroupBarrier();
  }
  let sum = partials[0];
  workgroupBarrier();
  return sum;
}
//#end
//#end
