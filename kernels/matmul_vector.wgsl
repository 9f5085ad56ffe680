// out (M, N) = a (M, K) · op(b) (K, N) for few rows, M ≤ ROWS, where all is reading b, and that once: a thread reads
// blocks of 4 × 4 of it. QUADS times four columns of `out` are made by a workgroup, whose threads share out K, SLICES
// for each four columns; in the end their sums are added by halves, in an order that is always the same. Threads side
// by side read side by side: along N where b lies by rows of K, along K where it is transposed.
//#import matmul_frame
//#import matmul_a
//#import weight_$FORMAT

const QUADS = u32($QUADS);
const SLICES = u32($SLICES); // a power of 2, at least 4
const THREADS = QUADS * SLICES;
//#if TRANSPOSE_B
const NEIGHBOUR = 1u; // where the next slice's thread is
//#else
const NEIGHBOUR = QUADS;
//#end

// At most four rows are added up at once: 16 KiB with 256 threads.
var<workgroup> sums: array<array<vec4f, THREADS>, $ATONCE>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
//#if TRANSPOSE_B
  let quad = thread / SLICES;
  let slice = thread % SLICES;
//#else
  let quad = thread % QUADS;
  let slice = thread / QUADS;
//#end
  let n = (group.x * QUADS + quad) * 4;
  //#for c in 0..BLOCKS
  //#for i in 0..ATONCE
  var sum$c$i = vec4f();
  //#end
  //#end
  for (var k0 = slice * 4; k0 < p.K; k0 += SLICES * 4 * $UNROLL) {
    //#for u in 0..UNROLL
    let k$u = k0 + SLICES * 4 * $u;
//#if TRANSPOSE_B
    let b$u = weightBlock(n, k$u);
//#else
    let b$u = weightBlock(k$u, n);
//#end
    //#end
    //#for u in 0..UNROLL
    //#for c in 0..BLOCKS
    //#for i in 0..ATONCE
//#if TRANSPOSE_B
    sum$c$i += a4($c * 4 + $i, k$u, p.M, p.K) * b$u;
//#else
    sum$c$i += b$u * a4($c * 4 + $i, k$u, p.M, p.K);
//#end
    //#end
    //#end
    //#end
  }
  //#for c in 0..BLOCKS
  //#for i in 0..ATONCE
  sums[$i][thread] = sum$c$i;
  //#end
  for (var half = SLICES / 2; half > 0; half /= 2) {
    workgroupBarrier();
    if (slice < half) {
      //#for i in 0..ATONCE
      sums[$i][thread] += sums[$i][thread + half * NEIGHBOUR];
      //#end
    }
  }
  workgroupBarrier();
  if (slice < $ATONCE) {
    store(0, $c * 4 + slice, n, sums[slice][thread - slice * NEIGHBOUR]);
  }
  workgroupBarrier();
  //#end
}
