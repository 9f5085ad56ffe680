// The frame of kernels that hold a row of C elements in registers, so that memory is read once: $PER of W elements, or
// vectors of four, to each of the THREADS threads of a row's workgroup, THREADS apart.
//#import index
//#import reduce

const THREADS = u32($THREADS);

//#if VECTORS
fn total(x: vec4f) -> f32 {
  return dot(x, vec4f(1));
}
//#else
fn total(x: f32) -> f32 {
  return x;
}
//#end
