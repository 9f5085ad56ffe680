// The frame of kernels that treat every element alike: they define `element(i)`, and `length` in Params. Where the
// length allows it, an element is a vector of four ($ELEMENT, $WORD).
//#import index

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let i = linear(group, groups) * 256 + thread;
  if (i < p.length) {
    element(i);
  }
}
