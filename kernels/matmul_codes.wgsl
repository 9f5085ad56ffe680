// out (M, N) = a (M, K) · op(b) (K, N), both in codes of 8 bits (or b in 4) whose groups of 32 run along K: tiles as
// those of `matmul`, a group deep. Within a group whole numbers are multiplied and added, four at once; then come the
// scales, and with codes of 4 bits the minimum times the sum of a's group. a comes from `matmul_codes_a`.
//#import matmul_frame
//#import matmul_codes_b

@group(0) @binding(3) var<storage, read> codes: array<u32>; // (M, ⌈K / 32⌉ · 8)
@group(0) @binding(7) var<storage, read> groups: array<vec2f>; // (M, ⌈K / 32⌉): scale, scale · sum of codes

const DOWN = u32($DOWN);
const ACROSS = u32($ACROSS);
const ROWS = 4 * u32($BLOCKS);
const VECTORS = u32($VECTORS);
const THREADS = DOWN * ACROSS;
const HEIGHT = DOWN * ROWS;
const WIDTH = ACROSS * VECTORS; // in fours
const A_COUNT = HEIGHT / 4 * 8;
const B_COUNT = WIDTH * 8;

// Words of four codes along K, of four rows or columns side by side.
var<workgroup> tileA: array<array<vec4u, HEIGHT / 4>, 8>;
var<workgroup> tileB: array<array<vec4u, WIDTH>, 8>;
var<workgroup> groupsA: array<vec2f, HEIGHT>;
var<workgroup> scalesB: array<mat2x4f, WIDTH>; // scales, minima

fn word(row: u32, at: u32) -> u32 {
  if (row >= p.M) {
    return 0;
  }
  return codes[row * ((p.K + 31) / 32 * 8) + at];
}

fn loadA(i: u32, m0: u32, k0: u32) -> vec4u {
  if (k0 >= p.K) {
    return vec4u();
  }
  let m = m0 + i / 8 * 4;
  return vec4u(
    //#for j in 0..4
    word(m + $j, k0 / 4 + i % 8),
    //#end
  );
}

fn loadB(i: u32, n0: u32, k0: u32) -> vec4u {
//#if TRANSPOSE_B
  return codeBlock(k0 + i % 8 * 4, n0 + i / 8 * 4);
//#else
  return codeBlock(k0 + i / WIDTH * 4, n0 + i % WIDTH * 4);
//#end
}

fn products(a: u32, b: vec4u) -> vec4i {
  return vec4i(dot4I8Packed(a, b.x), dot4I8Packed(a, b.y), dot4I8Packed(a, b.z), dot4I8Packed(a, b.w));
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let n0 = group.x * WIDTH * 4;
//#if SPLIT
  let share = group.y % p.splits;
  let m0 = group.y / p.splits * HEIGHT;
  let first = share * p.depth; // a multiple of 32
  let end = min(first + p.depth, p.K);
//#else
  let share = 0u;
  let m0 = group.y * HEIGHT;
  let first = 0u;
  let end = p.K;
//#end
  let tx = thread % ACROSS;
  let ty = thread / ACROSS;
  //#for r in 0..BLOCKS
  //#for i in 0..4
  //#for c in 0..VECTORS
  var sum$r$i$c = vec4f();
  //#end
  //#end
  //#end
  //#for l in 0..LOADS_A
  var nextA$l = loadA(thread + $l * THREADS, m0, first);
  //#end
  //#for l in 0..LOADS_B
  var nextB$l = loadB(thread + $l * THREADS, n0, first);
  //#end
  for (var k0 = first; k0 < end; k0 += 32) {
    //#for l in 0..LOADS_A
    if (thread + $l * THREADS < A_COUNT) {
      let i = thread + $l * THREADS;
      tileA[i % 8][i / 8] = nextA$l;
    }
    //#end
    //#for l in 0..LOADS_B
    if (thread + $l * THREADS < B_COUNT) {
      let i = thread + $l * THREADS;
//#if TRANSPOSE_B
      tileB[i % 8][i / 8] = nextB$l;
//#else
      tileB[i / WIDTH][i % WIDTH] = nextB$l;
//#end
    }
    //#end
    //#for l in 0..GROUPLOADS
    if (thread + $l * THREADS < HEIGHT) {
      let i = thread + $l * THREADS;
      groupsA[i] = groups[min(m0 + i, p.M - 1) * ((p.K + 31) / 32) + k0 / 32];
    }
    //#end
    if (thread < WIDTH) {
      scalesB[thread] = scaleBlock(k0, n0 + thread * 4);
    }
    workgroupBarrier();
    //#for l in 0..LOADS_A
    nextA$l = loadA(thread + $l * THREADS, m0, k0 + 32);
    //#end
    //#for l in 0..LOADS_B
    nextB$l = loadB(thread + $l * THREADS, n0, k0 + 32);
    //#end
    //#for r in 0..BLOCKS
    //#for i in 0..4
    //#for c in 0..VECTORS
    var whole$r$i$c = vec4i();
    //#end
    //#end
    //#end
    //#for q in 0..8
    {
      //#for r in 0..BLOCKS
      let a$r = tileA[$q][ty * (ROWS / 4) + $r];
      //#end
      //#for c in 0..VECTORS
      let b$c = tileB[$q][tx + $c * ACROSS];
      //#end
      //#for r in 0..BLOCKS
      //#for i in 0..4
      //#for c in 0..VECTORS
      whole$r$i$c += products(a$r[$i], b$c);
      //#end
      //#end
      //#end
    }
    //#end
    //#for c in 0..VECTORS
    let scales$c = scalesB[tx + $c * ACROSS];
    //#end
    //#for r in 0..BLOCKS
    //#for i in 0..4
    {
      let a = groupsA[ty * ROWS + $r * 4 + $i];
      //#for c in 0..VECTORS
      sum$r$i$c += vec4f(whole$r$i$c) * (a.x * scales$c[0]) + a.y * scales$c[1];
      //#end
    }
    //#end
    //#end
    workgroupBarrier();
  }
  //#for r in 0..BLOCKS
  //#for i in 0..4
  //#for c in 0..VECTORS
  store(share, m0 + ty * ROWS + $r * 4 + $i, n0 + ($c * ACROSS + tx) * 4, sum$r$i$c);
  //#end
  //#end
  //#end
}
