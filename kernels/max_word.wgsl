// The largest of the values of THREADS threads, known to be the same for all of them.

var<workgroup> largest: array<u32, THREADS>;

fn maxWord(thread: u32, value: u32) -> u32 {
//#if SUBGROUPS
  largest[thread] = subgroupMax(value);
  workgroupBarrier();
  let lane = subgroupExclusiveAdd(1u);
  let width = subgroupAdd(1u);
  var most = largest[lane];
  for (var i = lane + width; i < THREADS; i += width) {
    most = max(most, largest[i]);
  }
  most = subgroupMax(most);
  workgroupBarrier();
  if (thread == 0) {
    largest[0] = most;
  }
  workgroupBarrier();
//#else
  largest[thread] = value;
  workgroupBarrier();
  for (var half = THREADS / 2; half > 0; half /= 2) {
    if (thread < half) {
      largest[thread] = max(largest[thread], largest[thread + half]);
    }
    workgroupBarrier();
  }
//#end
  return workgroupUniformLoad(&largest[0]);
}
