// dTable[rows[t]] += dOut[t], without atomics and in the order of t: a row's first occurrence adds up all
// of them; the others do nothing. One workgroup per t.
//#import index

struct Params {
  T: u32,
  C: u32,
  // The table's rows firstRow … firstRow + tableRows − 1 are bound.
  firstRow: u32,
  tableRows: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> rows: array<u32>; // (T)
@group(0) @binding(2) var<storage, read> dOut: array<f32>; // (T, C)
@group(0) @binding(3) var<storage, read_write> dTable: array<f32>; // (tableRows, C)

var<workgroup> seen: atomic<u32>;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let t = linear(group, groups);
  if (t >= p.T) {
    return;
  }
  let row = rows[t];
  for (var s = thread; s < t; s += 64) {
    if (rows[s] == row) {
      atomicStore(&seen, 1);
    }
  }
  workgroupBarrier();
  if (atomicLoad(&seen) != 0 || row < p.firstRow || row - p.firstRow >= p.tableRows) {
    return;
  }
  for (var c = thread; c < p.C; c += 64) {
    let i = (row - p.firstRow) * p.C + c;
    var sum = dTable[i];
    for (var s = t; s < p.T; s++) {
      if (rows[s] == row) {
        sum += dOut[s * p.C + c];
      }
    }
    dTable[i] = sum;
  }
}
