/**
 * Frozen weights from files and to files: their numbers move between rows end to end, as files have them, and
 * rows padded to whole vectors, as kernels have them. Nothing is computed but the halves of q4's scales and
 * minima: those that this device chose are kept, others are rounded.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import {
  checkStored,
  CODE_BITS,
  codeBytes,
  isGrouped,
  LARGEST_HALF,
  scalesShape,
} from "../../tensor/stored.ts";
import type { PackedMatrix, StoredMatrix } from "../../tensor/tensor.ts";
import type { Gpu } from "./gpu.ts";
import { allocatePacked, layoutOf } from "./packing.ts";
import { free, memoryOf, type Part } from "./weights.ts";

/** Bytes in memory, of whatever. */
type Bytes = Uint8Array<ArrayBuffer>;

/**
 * Lays out a frozen weight that a file holds.
 *
 * @throws {WhetError} `format` if a scale or minimum does not fit into a half, `resource` if the matrix does not
 * fit into the device.
 */
export function packStored(gpu: Gpu, stored: StoredMatrix): PackedMatrix {
  checkStored(stored);
  const { rows, columns, format, axis, codes } = stored;
  const { stride, scaleStride, scaleRows } = layoutOf(format, columns, axis);
  const [, scaleColumns] = scalesShape(rows, columns, axis);
  const scales = scaleWords(stored);
  const matrix = allocatePacked(gpu, rows, columns, format, axis);
  try {
    for (const part of memoryOf(matrix).parts) {
      const own = rowsOf(codes, part.first, part.rows, columns * CODE_BITS[format]);
      const padded = restride(own, CODE_BITS[format], part.rows, columns, stride);
      gpu.write(part.bindings.weight!, words(padded));
      if (!scales) continue;
      const [first, count] = [part.first / scaleRows, Math.ceil(part.rows / scaleRows)];
      const ownScales = rowsOf(scales, first, count, scaleColumns * 32);
      gpu.write(part.bindings.scales!, words(restride(ownScales, 32, count, scaleColumns, scaleStride)));
    }
  } catch (error) {
    free(gpu, matrix);
    throw error;
  }
  return matrix;
}

/** A frozen weight as files hold it. */
export async function unpackStored(gpu: Gpu, matrix: PackedMatrix): Promise<StoredMatrix> {
  const { rows, columns, format, axis } = matrix;
  if (format === "f32") throw new WhetError("backend", "unpackStored: f32 weights are plain; unpack them");
  const { stride, scaleStride, scaleRows } = layoutOf(format, columns, axis);
  const codes = new Uint8Array(codeBytes(format, rows, columns));
  const [groups, scaleColumns] = scalesShape(rows, columns, axis);
  const scales = new Uint32Array(isGrouped(format) ? groups * scaleColumns : 0);
  const readPart = async ({ first, rows, bindings }: Part) => {
    const [weight, words] = await Promise.all([
      gpu.read(bindings.weight!),
      bindings.scales && gpu.read(bindings.scales),
    ]);
    const bits = CODE_BITS[format];
    codes.set(restride(bytesOf(weight), bits, rows, stride, columns), first * columns * bits / 8);
    if (!words) return;
    const count = Math.ceil(rows / scaleRows);
    const own = restride(bytesOf(words), 32, count, scaleStride, scaleColumns);
    new Uint8Array(scales.buffer).set(own, first / scaleRows * scaleColumns * 4);
  };
  await Promise.all(memoryOf(matrix).parts.map(readPart));
  const stored = { rows, columns, format, axis, codes };
  if (format === "q8") return { ...stored, scales: new Float32Array(scales.buffer) };
  if (format !== "q4") return stored;
  const halves = new Float16Array(scales.buffer);
  return {
    ...stored,
    scales: Float32Array.from(scales, (_, i) => halves[2 * i]),
    minima: Float32Array.from(scales, (_, i) => halves[2 * i + 1]),
  };
}

/** A word for every scale: an f32, or in q4 two halves. */
function scaleWords({ format, scales, minima }: StoredMatrix): Bytes | undefined {
  if (!scales) return undefined;
  if (!minima) return bytesOf(scales);
  const halves = new Float16Array(scales.length * 2);
  for (let i = 0; i < scales.length; i++) {
    halves[2 * i] = scales[i];
    halves[2 * i + 1] = minima[i];
    for (const x of [scales[i], minima[i]]) {
      if (Math.abs(x) <= LARGEST_HALF || !Number.isFinite(x)) continue;
      throw new WhetError(
        "format",
        `a ${format} matrix: a scale or minimum of ${x} does not fit into a half, whose largest is ` +
          `${LARGEST_HALF}: take f32 weights`,
      );
    }
  }
  return bytesOf(halves);
}

/** Rows of `width` bits each; they begin at a whole byte. */
function rowsOf(bytes: Bytes, first: number, rows: number, width: number): Bytes {
  return bytes.subarray(first * width / 8, Math.ceil((first + rows) * width / 8));
}

/**
 * Moves rows that lie `from` elements apart to where they lie `to` elements apart; what is new is zero.
 *
 * @param source The rows.
 * @param bits Of an element: 4 or more.
 * @param rows How many.
 */
function restride(source: Bytes, bits: number, rows: number, from: number, to: number): Bytes {
  if (from === to) return source;
  const target = new Uint8Array(Math.ceil(rows * to * bits / 8));
  const width = Math.min(from, to);
  if (from * bits % 8 === 0 && to * bits % 8 === 0) {
    const [begin, end, bytes] = [from, to, width].map((n) => n * bits / 8);
    for (let row = 0; row < rows; row++) {
      target.set(source.subarray(row * begin, row * begin + bytes), row * end);
    }
    return target;
  }
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < width; column++) {
      const [i, j] = [row * from + column, row * to + column];
      target[j >> 1] |= ((source[i >> 1] >> ((i & 1) << 2)) & 15) << ((j & 1) << 2);
    }
  }
  return target;
}

function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Bytes {
  return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);
}

/** The same bytes in words; where they lie askew, a copy. */
function words(bytes: Bytes): Uint32Array {
  const { buffer, byteOffset, byteLength } = bytes.byteOffset % 4 ? bytes.slice() : bytes;
  return new Uint32Array(buffer, byteOffset, byteLength / 4);
}
