/**
 * out (M, N) = activation(alpha · op(a) (M, K) · op(b) (K, N) + bias) + residual, after Goto and
 * van de Geijn (Anatomy of High-Performance Matrix Multiplication, 2008): a block of `a` is packed in
 * tiles of 5 rows and stays in the second-level cache, slices of 256 rows of a 16-column panel of `b`
 * stay in the first, sums gather in a strip of the block's height and are finished from there.
 *
 * Frozen f32 weights already lie in such panels and are read where they are; other forms of `b` are
 * brought into them slice by slice. Work splits by rows and by panels, without changing a bit.
 */
import { loadUpTo, storeUpTo, transpose4x4 } from "./simd";
import { gelu } from "./math";
import { packTileColumns, packTileRows, row, ROWS, tileNarrow } from "./tile_narrow";
import { tileWide } from "./tile_wide";
import { F16, F32, PLAIN } from "./formats";
import { rowsOfHalves, scaleForHalves } from "./row";
import { copyBlock, PANEL, panelBytes, unpackPanel } from "./weights";

/** Rows of `b` in a slice. */
// @ts-ignore: decorator
@inline
const SLICE: usize = 256;
/** Floats of a packed block of `a`: half a megabyte. */
// @ts-ignore: decorator
@inline
const BLOCK: usize = 131072;
/** Bytes of sums that wait for the next block of K. */
// @ts-ignore: decorator
@inline
const STRIPS: usize = 524288;

/** So few rows are multiplied one by one with weights in halves: each takes 0.09 ns a weight, a tile of five 0.34. */
// @ts-ignore: decorator
@inline
const FEW: usize = 3;

/**
 * How much of K is packed at once. A slice of a frozen bᵀ is gathered from as many panels as it is deep in
 * sixteens: with few rows above it to pay for that, only four, so that each is read as a stream (GPT-2's
 * logits of 16 rows: 32 GFLOP/s and not 21; of 64: 38 and 36; of more no difference).
 */
function blockDepth(M: usize, K: usize, gathered: bool): usize {
  if (gathered && M <= 96) return min<usize>(K, 64);
  return M <= FEW || K <= 2048 ? K : 1024;
}

/** How many rows of `a` are packed at once. */
function blockRows(M: usize, depth: usize): usize {
  const rows = min<usize>(385, max<usize>(50, (BLOCK / depth / ROWS) * ROWS));
  return min(rows, ((M + ROWS - 1) / ROWS) * ROWS);
}

/** How many rows a call of {@linkcode matmul} with these sizes computes at once; `gathered`: with a frozen bᵀ. */
export function matmulRows(M: usize, K: usize, gathered: bool): usize {
  return blockRows(M, blockDepth(M, K, gathered));
}

/** How many panels' strips wait for the next block of K: as many as the second-level cache holds. */
function groupPanels(rows: usize): usize {
  return STRIPS / (rows * 64);
}

/** Bytes of scratch that a call of {@linkcode matmul} with these sizes needs; `gathered`: of a frozen bᵀ. */
export function matmulScratch(M: usize, N: usize, K: usize, gathered: bool): usize {
  const depth = blockDepth(M, K, gathered);
  const rows = blockRows(M, depth);
  const panels = (N + PANEL - 1) / PANEL;
  let strips = rows * 64;
  if (K > depth) strips *= min(panels, groupPanels(rows));
  return SLICE * 64 + 1024 + rows * depth * 4 + strips + (M <= FEW ? M * K * 4 : 0);
}

/** Adds to what out holds. */
const ACCUMULATE: u32 = 1;
/** Applies GELU. */
const GELU: u32 = 2;
/** Computes 16 columns at once: the same bits, sooner where the engine pairs vectors (tile_wide.ts). */
export const WIDE: u32 = 4;

/**
 * @param kind `b`'s storage format, or PLAIN.
 * @param bias 0 for none.
 * @param residual 0 for none.
 * @param scratch As many bytes as {@linkcode matmulScratch} says, for this call alone.
 * @param rowBegin First row of out to compute; a multiple of 5.
 * @param panelBegin First 16 columns of out to compute.
 */
export function matmul(
  a: usize,
  transposeA: bool,
  b: usize,
  kind: u32,
  transposeB: bool,
  out: usize,
  M: usize,
  N: usize,
  K: usize,
  alpha: f32,
  flags: u32,
  bias: usize,
  residual: usize,
  scratch: usize,
  rowBegin: usize,
  rowEnd: usize,
  panelBegin: usize,
  panelEnd: usize,
): void {
  const slice = scratch;
  const square = slice + SLICE * 64;
  const depth = blockDepth(M, K, transposeB && kind != PLAIN);
  const height = blockRows(M, depth);
  const block = square + 1024;
  const strips = block + height * depth * 4;

  const inPlace = kind == F32 && !transposeB;
  const panelBytesB: usize = kind == PLAIN ? 0 : panelBytes(kind, transposeB ? N : K);
  const stripBytes = K > depth ? height * 64 : 0;
  const group = K > depth ? groupPanels(height) : panelEnd - panelBegin;
  const sliceDepth = M == 1 && inPlace ? depth : SLICE;
  const scaled = strips + 64 * ROWS;
  const quick = M <= FEW && kind == F16 && !transposeB && scaleForHalves(a, M * K, scaled);
  for (let i = rowBegin; i < rowEnd; i += height) {
    const rows = min(height, rowEnd - i);
    for (let first = panelBegin; first < panelEnd; first += group) {
      const last = min(panelEnd, first + group);
      for (let k0: usize = 0; k0 < K; k0 += depth) {
        const k1 = min(K, k0 + depth);
        if (M > 1) packBlock(a, transposeA, M, K, i, rows, k0, k1, block);
        for (let panel = first; panel < last; panel++) {
          const strip = strips + (panel - first) * stripBytes;
          const wide = N - panel * PANEL > 8;
          const done = quick && rowsOfHalves(scaled, M, K, b + panel * panelBytesB, strip);
          for (let k = done ? k1 : k0; k < k1; k += sliceDepth) {
            const count = min(sliceDepth, k1 - k);
            let p = slice;
            if (inPlace) p = b + panel * panelBytesB + k * 64;
            else if (kind == PLAIN) slicePlain(b, transposeB, N, K, panel, k, count, slice);
            else if (transposeB) sliceTransposed(b, kind, panelBytesB, N, panel, k, count, slice, square);
            else unpackPanel(kind, b + panel * panelBytesB, k, k + count, slice);
            if (M == 1) row(a + k * 4, p, count, strip, k == 0);
            else tiles(block + (k - k0) * (ROWS * 4), (k1 - k0) * 4, p, count, rows, wide, strip, k == 0, flags);
          }
          if (k1 == K) finish(strip, i, rows, panel, N, out, alpha, flags, bias, residual);
        }
      }
    }
  }
}

/** A strip's tiles: its rows, five by five, by the 16 columns of a slice, or by 8 if there are no more. */
function tiles(
  a: usize,
  rowBytes: usize,
  slice: usize,
  count: usize,
  rows: usize,
  wide: bool,
  strip: usize,
  first: bool,
  flags: u32,
): void {
  const atOnce = wide && (flags & WIDE) != 0;
  for (let r: usize = 0; r < rows; r += ROWS, a += rowBytes * ROWS, strip += 64 * ROWS) {
    if (atOnce) {
      tileWide(a, slice, count, strip, first);
    } else {
      tileNarrow(a, slice, count, strip, first);
      if (wide) tileNarrow(a, slice + 32, count, strip + 32, first);
    }
  }
}

/** Packs op(a)'s rows i … i + rows − 1, columns k0 … k1 − 1, as `[rows/5][k1 − k0][5]`, filled with zeros. */
function packBlock(
  a: usize,
  transposed: bool,
  M: usize,
  K: usize,
  i: usize,
  rows: usize,
  k0: usize,
  k1: usize,
  to: usize,
): void {
  const count = k1 - k0;
  for (const end = i + rows; i < end; i += ROWS, to += count * (ROWS * 4)) {
    const height = min(ROWS, end - i);
    if (transposed) {
      packTileColumns(a + (k0 * M + i) * 4, M * 4, height, count, to);
    } else {
      packTileRows(a + (i * K + k0) * 4, K * 4, height, count, to);
    }
  }
}

/** Brings rows k … k + count − 1 of a panel of a plain op(b) into a slice. */
function slicePlain(
  b: usize,
  transposed: bool,
  N: usize,
  K: usize,
  panel: usize,
  k: usize,
  count: usize,
  slice: usize,
): void {
  const column = panel * PANEL;
  const width = min(PANEL, N - column);
  if (!transposed) {
    copyBlock(b + (k * N + column) * 4, N, width, count, slice);
    return;
  }
  const step = K * 4;
  let from = b + (column * K + k) * 4;
  for (let j: usize = 0; j < PANEL; j += 4, from += 4 * step, slice += 16) {
    let i: usize = 0;
    if (j + 4 <= width) {
      for (; i + 4 <= count; i += 4) transpose4x4(from + i * 4, step, slice + i * 64, 64);
    }
    for (; i < count; i++) {
      for (let c: usize = 0; c < 4; c++) {
        store<f32>(slice + i * 64 + c * 4, j + c < width ? load<f32>(from + c * step + i * 4) : 0);
      }
    }
  }
}

/** Brings rows k … k + count − 1 of a panel of bᵀ into a slice; b has N rows, and k is a multiple of 16. */
function sliceTransposed(
  b: usize,
  format: u32,
  panelBytesB: usize,
  N: usize,
  panel: usize,
  k: usize,
  count: usize,
  slice: usize,
  square: usize,
): void {
  const n = panel * PANEL;
  const rows = min(PANEL, N - n);
  if (rows < PANEL) memory.fill(square, 0, 1024);
  for (let i: usize = 0; i < count; i += PANEL, slice += 1024) {
    const source = b + ((k + i) / PANEL) * panelBytesB;
    let from = square;
    if (format == F32 && rows == PANEL) from = source + n * 64;
    else unpackPanel(format, source, n, n + rows, square);
    for (let r: usize = 0; r < PANEL; r += 4) {
      for (let c: usize = 0; c < PANEL; c += 4) {
        transpose4x4(from + r * 64 + c * 4, 64, slice + c * 64 + r * 4, 64);
      }
    }
  }
}

/** The epilogue: out's rows i … i + rows − 1 in one panel from their sums. */
export function finish(
  strip: usize,
  i: usize,
  rows: usize,
  panel: usize,
  N: usize,
  out: usize,
  alpha: f32,
  flags: u32,
  bias: usize,
  residual: usize,
): void {
  const column = panel * PANEL;
  const width = min(PANEL, N - column);
  const factor = f32x4.splat(alpha);
  for (let r: usize = 0; r < rows; r++, strip += 64) {
    const at = ((i + r) * N + column) * 4;
    for (let j: usize = 0; j < width; j += 4) {
      const count = width - j;
      const p = at + j * 4;
      let v = f32x4.mul(v128.load(strip + j * 4), factor);
      if (bias) v = f32x4.add(v, loadUpTo(bias + (column + j) * 4, count));
      if (flags & GELU) v = gelu(v);
      if (residual) v = f32x4.add(v, loadUpTo(residual + p, count));
      if (flags & ACCUMULATE) v = f32x4.add(v, loadUpTo(out + p, count));
      storeUpTo(out + p, v, count);
    }
  }
}
