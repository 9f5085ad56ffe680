// out (M, N) = op(a) (M, K) · op(b) (K, N) in tiles: DOWN × ACROSS threads make one of DOWN · ROWS × ACROSS · 4 ·
// VECTORS outputs, ROWS × 4 · VECTORS each, in slices of 4 · QUADS of K. Both operands are staged in workgroup memory
// as they are stored and transposed, if at all, in registers, where that is only a matter of names; while one slice is
// worked through, the next is on its way. b comes through `weight4`, which hides how it is stored.
//
// naga guards loops (gfx-rs/wgpu#7698): but for the one over slices they are written out. It also checks each index
// into workgroup memory: there is one that varies, by the thread, to each access, and it is the same for all slices.
//
// With HALVES, factors are rounded to halves and multiplied as such; a slice's sums are added up in f32.
//#import matmul_frame
//#import matmul_a
//#import weight_$FORMAT

//#if HALVES
alias element = f16;
//#else
alias element = f32;
//#end
alias quad = vec4<element>;
alias square = mat4x4<element>;

const DOWN = u32($DOWN);
const ACROSS = u32($ACROSS); // a power of 2
const ROWS = 4 * u32($BLOCKS);
const VECTORS = u32($VECTORS);
const QUADS = u32($QUADS);
const THREADS = DOWN * ACROSS;
const HEIGHT = DOWN * ROWS;
const WIDTH = ACROSS * VECTORS; // in vec4
const DEPTH = 4 * QUADS;

//#if TRANSPOSE_A
const A_WIDTH = HEIGHT / 4;
var<workgroup> tileA: array<array<quad, A_WIDTH>, DEPTH>; // (k, m / 4)
//#else
const A_WIDTH = QUADS;
// (m / ROWS, m % ROWS and k / 4); where few threads lie across, those that read together lie in different banks.
var<workgroup> tileA: array<array<quad, ROWS * QUADS + $PADDING>, DOWN>;
//#end
//#if TRANSPOSE_B
var<workgroup> tileB: array<array<quad, ACROSS>, 4 * VECTORS * QUADS>; // (vector and n % 4 and k / 4, thread)
//#else
var<workgroup> tileB: array<array<quad, WIDTH>, DEPTH>; // (k, n / 4)
//#end
const A_COUNT = HEIGHT * QUADS;
const B_COUNT = WIDTH * 4 * QUADS;

fn loadA(i: u32, m0: u32, k0: u32) -> quad {
  if (A_COUNT % THREADS != 0 && i >= A_COUNT) {
    return quad();
  }
//#if TRANSPOSE_A
  return quad(a4(k0 + i / A_WIDTH, m0 + i % A_WIDTH * 4, p.K, p.M));
//#else
  return quad(a4(m0 + i / A_WIDTH, k0 + i % A_WIDTH * 4, p.M, p.K));
//#end
}

fn stageA(i: u32, value: quad) {
  if (A_COUNT % THREADS != 0 && i >= A_COUNT) {
    return;
  }
//#if TRANSPOSE_A
  tileA[i / A_WIDTH][i % A_WIDTH] = value;
//#else
  tileA[i / (ROWS * QUADS)][i % (ROWS * QUADS)] = value;
//#end
}

fn loadB(i: u32, n0: u32, k0: u32) -> quad {
  if (B_COUNT % THREADS != 0 && i >= B_COUNT) {
    return quad();
  }
//#if TRANSPOSE_B
  return quad(weight4(n0 + i / QUADS, k0 + i % QUADS * 4));
//#else
  return quad(weight4(k0 + i / WIDTH, n0 + i % WIDTH * 4));
//#end
}

//#if TRANSPOSE_B
// Threads that stage together write rows that lie apart by multiples of all banks: their columns are permuted.
fn permuted(x: u32, j: u32, q: u32) -> u32 {
  return x ^ ((q + 4 * j) & (ACROSS - 1));
}
//#end

fn stageB(i: u32, value: quad) {
  if (B_COUNT % THREADS != 0 && i >= B_COUNT) {
    return;
  }
//#if TRANSPOSE_B
  let n = i / QUADS;
  let q = i % QUADS;
  let vector = n / (4 * ACROSS);
  tileB[(vector * 4 + n % 4) * QUADS + q][permuted(n / 4 % ACROSS, n % 4, q)] = value;
//#else
  tileB[i / WIDTH][i % WIDTH] = value;
//#end
}

// sum + a · b: a row vector times the four rows of b, as four multiply-adds that drivers fuse.
fn multiplyAdd(sum: quad, a: quad, b: square) -> quad {
  return sum + a.x * b[0] + a.y * b[1] + a.z * b[2] + a.w * b[3];
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let n0 = group.x * WIDTH * 4;
//#if SPLIT
  let share = group.y % p.splits;
  let m0 = group.y / p.splits * HEIGHT;
  let first = share * p.depth; // a multiple of DEPTH
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
  for (var k0 = first; k0 < end; k0 += DEPTH) {
    //#for l in 0..LOADS_A
    stageA(thread + $l * THREADS, nextA$l);
    //#end
    //#for l in 0..LOADS_B
    stageB(thread + $l * THREADS, nextB$l);
    //#end
    workgroupBarrier();
    //#for l in 0..LOADS_A
    nextA$l = loadA(thread + $l * THREADS, m0, k0 + DEPTH);
    //#end
    //#for l in 0..LOADS_B
    nextB$l = loadB(thread + $l * THREADS, n0, k0 + DEPTH);
    //#end
//#if HALVES
    //#for r in 0..BLOCKS
    //#for i in 0..4
    //#for c in 0..VECTORS
    var slice$r$i$c = quad();
    //#end
    //#end
    //#end
//#end
    //#for q in 0..QUADS
    {
      //#for r in 0..BLOCKS
//#if TRANSPOSE_A
      let a$r = transpose(square(
        //#for j in 0..4
        tileA[$q * 4 + $j][ty * (ROWS / 4) + $r],
        //#end
      ));
//#else
      let a$r = square(
        //#for i in 0..4
        tileA[ty][($r * 4 + $i) * QUADS + $q],
        //#end
      );
//#end
      //#end
      // One block of b at a time, to have fewer registers in use.
      //#for c in 0..VECTORS
//#if TRANSPOSE_B
      let b$c = transpose(square(
        //#for j in 0..4
        tileB[($c * 4 + $j) * QUADS + $q][permuted(tx, $j, $q)],
        //#end
      ));
//#else
      let b$c = square(
        //#for j in 0..4
        tileB[$q * 4 + $j][tx + $c * ACROSS],
        //#end
      );
//#end
        //#for r in 0..BLOCKS
        //#for i in 0..4
//#if HALVES
      slice$r$i$c = multiplyAdd(slice$r$i$c, a$r[$i], b$c);
//#else
      sum$r$i$c = multiplyAdd(sum$r$i$c, a$r[$i], b$c);
//#end
        //#end
        //#end
      //#end
    }
    //#end
//#if HALVES
    //#for r in 0..BLOCKS
    //#for i in 0..4
    //#for c in 0..VECTORS
    sum$r$i$c += vec4f(slice$r$i$c);
    //#end
    //#end
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
