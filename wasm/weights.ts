/**
 * Frozen weights: a (K, N) matrix that is summed over K, in panels of 16 columns, each of which a product reads as one
 * contiguous stream. The last panel's missing columns are zero.
 *
 * - F32: `[N/16][K][16]` floats.
 * - F16: `[N/16][K][16]` halves.
 * - Q8, Q4: see codes.ts.
 *
 * A matrix whose groups run along its columns is packed as its transpose: steps between the elements say which way
 * the source lies.
 */
import {
  blockBytes,
  chooseRatios,
  chooseScales,
  chooseSteps,
  codeAt,
  codesPanelBytes,
  decodeBlock,
  decodeColumn,
  encodeBlock,
  GROUP,
  Q8_CODES,
  STEPS,
} from "./codes";
import { F16, F32, Q4, Q8 } from "./formats";
import { fromHalf, toHalf, unpackHalves } from "./half";
import { loadSome, transpose4x4, zero } from "./simd";

/** Columns of a panel. */
// @ts-ignore: decorator
@inline
export const PANEL: usize = 16;

/** Bytes of one panel of K rows. */
export function panelBytes(kind: u32, K: usize): usize {
  if (kind == F32) return K * 64;
  if (kind == F16) return K * 32;
  return codesPanelBytes(kind, K);
}

/** Bytes of a packed (K, N) matrix. */
export function packedBytes(kind: u32, K: usize, N: usize): usize {
  const rows: usize = kind == Q8 || kind == Q4 ? blocksOf(K) * GROUP * 4 : 0;
  return ((N + PANEL - 1) / PANEL) * panelBytes(kind, K) + rows;
}

// @ts-ignore: decorator
@inline
function blocksOf(K: usize): usize {
  return (K + GROUP - 1) / GROUP;
}

/** Bytes of scratch that a call of the functions below needs. */
export function packScratch(K: usize): usize {
  return blocksOf(K) * (GROUP * 64 + 128);
}

/**
 * Packs panels begin … end − 1.
 *
 * @param from Where the first row of panel `first` lies; an element is `stepK` bytes from that of the next row,
 * `stepN` from that of the next column. One of them is 4.
 * @param to The packed weight.
 */
export function packPanels(
  kind: u32,
  from: usize,
  stepK: usize,
  stepN: usize,
  first: usize,
  to: usize,
  K: usize,
  N: usize,
  begin: usize,
  end: usize,
  scratch: usize,
): void {
  const scales = scratch + blocksOf(K) * (GROUP * 64);
  const minima = scales + blocksOf(K) * 64;
  for (let p = begin; p < end; p++) {
    const panel = to + p * panelBytes(kind, K);
    const width = min(PANEL, N - p * PANEL);
    const source = from + (p - first) * PANEL * stepN;
    if (kind == F32) {
      bring(source, stepK, stepN, width, K, panel);
      continue;
    }
    bring(source, stepK, stepN, width, K, scratch);
    if (kind == F16) {
      halvePanel(scratch, K, panel);
      continue;
    }
    for (let k: usize = 0; k < K; k += GROUP) {
      chooseScales(kind, scratch + k * 64, min(GROUP, K - k), scales + k * 2, minima + k * 2);
    }
    encodePanel(kind, scratch, scales, minima, K, panel);
  }
}

/** A panel out of its rows of 16 floats and its blocks' scales and minima. */
function encodePanel(kind: u32, rows: usize, scales: usize, minima: usize, K: usize, panel: usize): void {
  chooseSteps(kind, scales, blocksOf(K), panel);
  let block = panel + STEPS;
  for (let k: usize = 0; k < K; k += GROUP, block += blockBytes(kind)) {
    chooseRatios(kind, panel, scales + k * 2, minima + k * 2, block);
    encodeBlock(kind, rows + k * 64, min(GROUP, K - k), panel, block);
  }
}

/** K rows of 16 floats, filled with zeros, out of a matrix whose rows or columns are contiguous. */
function bring(from: usize, stepK: usize, stepN: usize, width: usize, K: usize, to: usize): void {
  if (stepN == 4) {
    copyBlock(from, stepK / 4, width, K, to);
    return;
  }
  for (let j: usize = 0; j < PANEL; j += 4, from += 4 * stepN, to += 16) {
    let k: usize = 0;
    if (j + 4 <= width) {
      for (; k + 4 <= K; k += 4) transpose4x4(from + k * 4, stepN, to + k * 64, 64);
    }
    for (; k < K; k++) {
      for (let c: usize = 0; c < 4; c++) {
        store<f32>(to + k * 64 + c * 4, j + c < width ? load<f32>(from + c * stepN + k * 4) : 0);
      }
    }
  }
}

/** Copies a (rows, width) block out of a matrix of N columns to rows of 16 floats, filled with zeros. */
export function copyBlock(from: usize, N: usize, width: usize, rows: usize, to: usize): void {
  const step = N * 4;
  if (width == PANEL) {
    for (let k: usize = 0; k < rows; k++, from += step, to += 64) {
      v128.store(to, v128.load(from));
      v128.store(to, v128.load(from, 16), 16);
      v128.store(to, v128.load(from, 32), 32);
      v128.store(to, v128.load(from, 48), 48);
    }
    return;
  }
  for (let k: usize = 0; k < rows; k++, from += step, to += 64) {
    for (let j: usize = 0; j < PANEL; j += 4) {
      v128.store(to + j * 4, j < width ? loadSome(from + j * 4, width - j) : zero());
    }
  }
}

function halvePanel(from: usize, rows: usize, to: usize): void {
  for (let i: usize = 0; i < rows * 2; i++, from += 32, to += 16) {
    const low = toHalf(v128.load(from));
    const high = toHalf(v128.load(from, 16));
    v128.store(to, i16x8.narrow_i32x4_u(low, high));
  }
}

/** Rows k0 … k1 − 1 of the panel at `panel` as `[·][16]` floats at `to`; `to` is not the panel's own F32. */
export function unpackPanel(kind: u32, panel: usize, k0: usize, k1: usize, to: usize): void {
  if (kind == F32) {
    memory.copy(to, panel + k0 * 64, (k1 - k0) * 64);
  } else if (kind == F16) {
    unpackHalves(panel + k0 * 32, k1 - k0, to, 64);
  } else {
    for (let k = k0; k < k1;) {
      const block = panel + STEPS + (k / GROUP) * blockBytes(kind);
      const last = min(k1, (k / GROUP + 1) * GROUP);
      decodeBlock(kind, panel, block, k % GROUP, last - k, to);
      to += (last - k) * 64;
      k = last;
    }
  }
}

/** Column n of a packed matrix, K floats. */
export function unpackColumn(kind: u32, weight: usize, K: usize, n: usize, to: usize): void {
  const panel = weight + (n / PANEL) * panelBytes(kind, K);
  const c = n % PANEL;
  if (kind == F32) {
    for (let k: usize = 0; k < K; k++) store<f32>(to + k * 4, load<f32>(panel + k * 64 + c * 4));
  } else if (kind == F16) {
    for (let k: usize = 0; k < K; k++) {
      const half = i32x4.splat(<i32> load<u16>(panel + k * 32 + c * 2));
      v128.store32_lane(to + k * 4, fromHalf(half), 0);
    }
  } else {
    decodeColumn(kind, panel, c, K, to);
  }
}

/** Panels begin … end − 1 as floats; the steps are those of {@linkcode packPanels}. */
export function unpackPanels(
  kind: u32,
  from: usize,
  to: usize,
  stepK: usize,
  stepN: usize,
  first: usize,
  K: usize,
  N: usize,
  begin: usize,
  end: usize,
  scratch: usize,
): void {
  for (let p = begin; p < end; p++) {
    const width = min(PANEL, N - p * PANEL);
    unpackPanel(kind, from + p * panelBytes(kind, K), 0, K, scratch);
    const place = to + (p - first) * PANEL * stepN;
    if (stepN == 4) {
      for (let k: usize = 0; k < K; k++) memory.copy(place + k * stepK, scratch + k * 64, width * 4);
      continue;
    }
    for (let j: usize = 0; j < width; j++) {
      for (let k: usize = 0; k < K; k++) {
        store<f32>(place + j * stepN + k * 4, load<f32>(scratch + k * 64 + j * 4));
      }
    }
  }
}

/** The element at an index of codes as files hold them, as a float. */
// @ts-ignore: decorator
@inline
function storedCode(kind: u32, codes: usize, index: usize): f32 {
  if (kind == Q8) return <f32> load<i8>(codes + index);
  const both = load<u8>(codes + index / 2);
  return <f32> (index & 1 ? both >> 4 : both & 15);
}

/**
 * Packs panels begin … end − 1 of a matrix as files hold it.
 *
 * @param codes Of panel `first`'s first row on; steps count elements (halves, bytes or nibbles).
 * @param scales Of group 0 and column 0 on, as are the minima; steps count numbers from group to group, column to
 * column.
 */
export function packStored(
  kind: u32,
  codes: usize,
  stepK: usize,
  stepN: usize,
  first: usize,
  scales: usize,
  minima: usize,
  scaleStepK: usize,
  scaleStepN: usize,
  to: usize,
  K: usize,
  N: usize,
  begin: usize,
  end: usize,
  scratch: usize,
): void {
  const ownScales = scratch + blocksOf(K) * (GROUP * 64);
  const ownMinima = ownScales + blocksOf(K) * 64;
  for (let p = begin; p < end; p++) {
    const panel = to + p * panelBytes(kind, K);
    const width = min(PANEL, N - p * PANEL);
    let index = (p - first) * PANEL * stepN;
    if (kind == F16) {
      memory.fill(panel, 0, K * 32);
      for (let c: usize = 0; c < width; c++, index += stepN) {
        for (let k: usize = 0; k < K; k++) {
          store<u16>(panel + k * 32 + c * 2, load<u16>(codes + (index + k * stepK) * 2));
        }
      }
      continue;
    }
    memory.fill(scratch, 0, packScratch(K));
    for (let c: usize = 0; c < width; c++) {
      for (let k: usize = 0; k < K; k += GROUP) {
        const group = ((p * PANEL + c) * scaleStepN + (k / GROUP) * scaleStepK) * 4;
        const scale = load<f32>(scales + group);
        store<f32>(ownScales + k * 2 + c * 4, scale);
        if (kind == Q8) continue;
        // Here a group's range has 0 in it.
        const minimum = load<f32>(minima + group);
        const low = min<f32>(0, minimum);
        store<f32>(ownMinima + k * 2 + c * 4, low);
        const high = minimum + 15 * scale;
        if (low != minimum || high < 0) {
          store<f32>(ownScales + k * 2 + c * 4, (max<f32>(0, high) - low) / 15);
        }
      }
    }
    if (kind == Q8 && ratiosHold(ownScales, K, panel)) {
      copyCodes(codes + index, stepK, stepN, width, K, panel);
      continue;
    }
    for (let c: usize = 0; c < width; c++, index += stepN) {
      for (let k: usize = 0; k < K; k++) {
        const group = ((p * PANEL + c) * scaleStepN + (k / GROUP) * scaleStepK) * 4;
        const minimum: f32 = kind == Q4 ? load<f32>(minima + group) : 0;
        const code = storedCode(kind, codes, index + k * stepK);
        store<f32>(scratch + k * 64 + c * 4, code * load<f32>(scales + group) + minimum);
      }
    }
    encodePanel(kind, scratch, ownScales, ownMinima, K, panel);
  }
}

/** Chooses a panel's steps and ratios; whether all its scales are exactly their products, so that codes stay. */
function ratiosHold(scales: usize, K: usize, panel: usize): bool {
  chooseSteps(Q8, scales, blocksOf(K), panel);
  let holds = true;
  let block = panel + STEPS;
  for (let k: usize = 0; k < K; k += GROUP, block += blockBytes(Q8)) {
    chooseRatios(Q8, panel, scales + k * 2, 0, block);
    for (let c: usize = 0; c < PANEL; c++) {
      const scale = load<f32>(panel + c * 4) * <f32> load<u8>(block + c);
      if (scale != load<f32>(scales + k * 2 + c * 4)) holds = false;
    }
  }
  return holds;
}

/** Copies a panel's 8-bit codes out of a matrix whose rows or columns are contiguous. */
function copyCodes(from: usize, stepK: usize, stepN: usize, width: usize, K: usize, panel: usize): void {
  let block = panel + STEPS;
  for (let k: usize = 0; k < K; k += GROUP, block += blockBytes(Q8)) {
    const rows = min(GROUP, K - k);
    const to = block + Q8_CODES;
    let i: usize = 0;
    if (stepN == 1 && width == PANEL) {
      for (; i + 4 <= rows; i += 4) {
        const p = from + (k + i) * stepK;
        const a = v128.load(p), b = v128.load(p + stepK);
        const c = v128.load(p + 2 * stepK), d = v128.load(p + 3 * stepK);
        const ab = v128.shuffle<i8>(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        const cd = v128.shuffle<i8>(c, d, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        const AB = v128.shuffle<i8>(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        const CD = v128.shuffle<i8>(c, d, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        const q = to + i * 16;
        v128.store(q, v128.shuffle<i16>(ab, cd, 0, 8, 1, 9, 2, 10, 3, 11));
        v128.store(q, v128.shuffle<i16>(ab, cd, 4, 12, 5, 13, 6, 14, 7, 15), 16);
        v128.store(q, v128.shuffle<i16>(AB, CD, 0, 8, 1, 9, 2, 10, 3, 11), 32);
        v128.store(q, v128.shuffle<i16>(AB, CD, 4, 12, 5, 13, 6, 14, 7, 15), 48);
      }
    } else if (stepK == 1) {
      for (; i + 4 <= rows; i += 4) {
        for (let c: usize = 0; c < width; c++) {
          store<u32>(to + i * 16 + c * 4, load<u32>(from + k + i + c * stepN));
        }
        for (let c = width; c < PANEL; c++) store<u32>(to + i * 16 + c * 4, 0);
      }
    }
    // What is left of a group is filled with zeros first.
    if (i < GROUP) memory.fill(to + i * 16, 0, (GROUP - i) * 16);
    for (; i < rows; i++) {
      for (let c: usize = 0; c < width; c++) {
        store<u8>(to + (i & ~3) * 16 + c * 4 + (i & 3), load<u8>(from + (k + i) * stepK + c * stepN));
      }
    }
  }
}

/** All panels as files hold them; the steps are those of {@linkcode packStored}, codes are zeros before. */
export function unpackStored(
  kind: u32,
  from: usize,
  codes: usize,
  stepK: usize,
  stepN: usize,
  scales: usize,
  minima: usize,
  scaleStepK: usize,
  scaleStepN: usize,
  K: usize,
  N: usize,
): void {
  for (let n: usize = 0; n < N; n++) {
    const panel = from + (n / PANEL) * panelBytes(kind, K);
    const c = n % PANEL;
    if (kind == F16) {
      for (let k: usize = 0; k < K; k++) {
        store<u16>(codes + (k * stepK + n * stepN) * 2, load<u16>(panel + k * 32 + c * 2));
      }
      continue;
    }
    const step = load<f32>(panel + c * 4);
    let block = panel + STEPS;
    for (let k: usize = 0; k < K; k += GROUP, block += blockBytes(kind)) {
      const group = (n * scaleStepN + (k / GROUP) * scaleStepK) * 4;
      store<f32>(scales + group, step * <f32> load<u8>(block + c));
      if (kind == Q4) store<f32>(minima + group, -(step * <f32> load<u16>(block + 16 + c * 2)));
      const last = min(GROUP, K - k);
      for (let i: usize = 0; i < last; i++) {
        const index = (k + i) * stepK + n * stepN;
        const code = codeAt(kind, block, i, c);
        if (kind == Q8) store<i8>(codes + index, <i8> code);
        else store<u8>(codes + index / 2, load<u8>(codes + index / 2) | <u8> (index & 1 ? code << 4 : code));
      }
    }
  }
}
