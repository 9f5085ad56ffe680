/**
 * Frozen weights as the kernels store them: by rows, padded to whole vectors, in as many buffers as the
 * device's limit on one binding asks for. One copy serves products with the matrix and its transpose. The
 * device packs them itself (`kernels/pack_*.wgsl`).
 *
 * - f32: as it is.
 * - f16: halves, two to a word.
 * - q8: codes −127 … 127, four to a word, times a scale.
 * - q4: codes 0 … 15, eight to a word, times a scale, plus a minimum.
 *
 * A group of 32 numbers, down the rows or along the columns, shares a scale: an f32 in q8; in q4 two halves in one
 * word, the scale and the minimum. Scales lie by rows of groups, those down the rows padded as the codes are.
 *
 * @module
 */
import { WhetError } from "../../errors.ts";
import { GROUP, isGrouped, refuseBeyondHalves } from "../../tensor/stored.ts";
import { type GroupAxis, PackedMatrix, type WeightFormat } from "../../tensor/tensor.ts";
import type { Allocation } from "./buffers.ts";
import type { Gpu } from "./gpu.ts";
import type { Slice } from "./slices.ts";
import { memoryOf, type PackedMemory, type Part, rowsPerPart } from "./weights.ts";

/** Bytes of plain numbers that are packed at once. */
const CHUNK_BYTES = 16 << 20;

/** How a format lies in memory. */
export interface Layout {
  /** Columns with padding. */
  readonly stride: number;
  /** Bytes of one row's codes. */
  readonly rowBytes: number;
  /** Scales beside one another; 0 without. */
  readonly scaleStride: number;
  /** Rows that a row of scales serves. */
  readonly scaleRows: number;
  /** Rows and columns that a thread packs. */
  readonly block: readonly [rows: number, columns: number];
}

/** The layout of a matrix with so many columns. */
export function layoutOf(format: WeightFormat, columns: number, axis: GroupAxis = 0): Layout {
  const width = format === "q4" ? 8 : 4;
  const stride = Math.ceil(columns / width) * width;
  const rowBytes = { f32: stride * 4, f16: stride * 2, q8: stride, q4: stride / 2 }[format];
  if (!isGrouped(format)) return { stride, rowBytes, scaleStride: 0, scaleRows: 1, block: [1, 4] };
  return axis === 0
    ? { stride, rowBytes, scaleStride: stride, scaleRows: GROUP, block: [GROUP, width] }
    : { stride, rowBytes, scaleStride: Math.ceil(columns / GROUP), scaleRows: 1, block: [4, GROUP] };
}

/**
 * Uploads and packs a frozen weight.
 *
 * @param data Row-major (rows, columns).
 * @throws {WhetError} `format` if a number does not fit into the format, `resource` if the matrix does not
 * fit into the device.
 */
export function pack(
  gpu: Gpu,
  data: Float32Array,
  rows: number,
  columns: number,
  format: WeightFormat,
  axis: GroupAxis = 0,
): PackedMatrix {
  if (data.length !== rows * columns) {
    throw new WhetError("backend", `${data.length} numbers were packed as ${rows} × ${columns}`);
  }
  if (format === "f16" || format === "q4") refuseBeyondHalves(data, columns, format);
  const matrix = allocatePacked(gpu, rows, columns, format, axis);
  for (const part of memoryOf(matrix).parts) {
    fillPart(gpu, data.subarray(part.first * columns, (part.first + part.rows) * columns), part, matrix);
  }
  return matrix;
}

/** Takes memory for a frozen weight, in parts that one binding holds each. */
export function allocatePacked(
  gpu: Gpu,
  rows: number,
  columns: number,
  format: WeightFormat,
  axis: GroupAxis,
): PackedMatrix {
  const { stride, rowBytes, scaleStride, scaleRows } = layoutOf(format, columns, axis);
  const size = rowsPerPart(gpu.maxBindingBytes, rowBytes, GROUP);
  const parts: Part[] = [];
  const allocations: Allocation[] = [];
  for (let first = 0; first < rows; first += size) {
    const count = Math.min(size, rows - first);
    const codes = Math.ceil(count * rowBytes / 256) * 256;
    const scales = Math.ceil(count / scaleRows) * scaleStride * 4;
    const allocation = gpu.allocate(codes + scales, `a ${format} weight of ${rows} × ${columns}`);
    allocations.push(allocation);
    const { block } = allocation;
    const bindings: Record<string, Slice> = { weight: { block, offset: 0, bytes: count * rowBytes } };
    if (scales) bindings.scales = { block, offset: codes, bytes: scales };
    const params = { weightRows: count, weightColumns: columns, weightStride: stride };
    parts.push({ first, rows: count, bindings, params });
  }
  gpu.allocations++;
  const variant = { FORMAT: format, AXIS: isGrouped(format) ? axis : 0 };
  const memory: PackedMemory = { variant, parts, allocations };
  return new PackedMatrix(rows, columns, format, memory, axis);
}

/** Packs a part's rows, some at a time. */
function fillPart(gpu: Gpu, data: Float32Array, part: Part, { format, columns, axis }: PackedMatrix): void {
  const { stride, block: [ROWS, COLUMNS] } = layoutOf(format, columns, axis);
  if (format === "f32" && stride === columns) return gpu.write(part.bindings.weight!, data);
  const size = rowsPerPart(Math.min(CHUNK_BYTES, gpu.maxBindingBytes), columns * 4, GROUP);
  const allocation = gpu.allocate(Math.min(size, part.rows) * columns * 4, `rows of ${columns} numbers`);
  for (let row = 0; row < part.rows; row += size) {
    const rows = Math.min(size, part.rows - row);
    const source = { block: allocation.block, offset: 0, bytes: rows * columns * 4 };
    gpu.write(source, data.subarray(row * columns, (row + rows) * columns));
    const threads = Math.ceil(rows / ROWS) * Math.ceil(stride / COLUMNS);
    gpu.run(
      `pack_${format}`,
      { ...part.bindings, source },
      { row, rows, columns, stride },
      [Math.ceil(threads / 64)],
      { AXIS: isGrouped(format) ? axis : 0, ROWS, COLUMNS },
    );
  }
  gpu.release(allocation);
}

/** Reads a frozen weight back as the kernels see it. */
export async function unpack(gpu: Gpu, matrix: PackedMatrix): Promise<Float32Array> {
  const { rows, columns } = matrix;
  const content = new Float32Array(rows * columns);
  const { variant, parts } = memoryOf(matrix);
  const size = Math.max(1, Math.floor(gpu.maxBindingBytes / (columns * 4)));
  const reads: Promise<void>[] = [];
  for (const part of parts) {
    for (let row = 0; row < part.rows; row += size) {
      const count = Math.min(size, part.rows - row);
      const bytes = count * columns * 4;
      const allocation = gpu.allocate(bytes, `${count} rows of ${columns}`);
      const out = { block: allocation.block, offset: 0, bytes };
      const params = { row, rows: count, ...part.params };
      const groups = Math.ceil(count * Math.ceil(columns / 4) / 256);
      gpu.run("unpack", { ...part.bindings, out }, params, [groups], variant);
      reads.push(gpu.read(out).then((numbers) => content.set(numbers, (part.first + row) * columns)));
      gpu.release(allocation);
    }
  }
  await Promise.all(reads);
  return content;
}
