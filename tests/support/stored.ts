/**
 * Frozen weights in numbers, written to be read: what {@linkcode StoredMatrix} means, and the plainest way to
 * make one. Backends may fit their scales better.
 *
 * @module
 */
import type { GroupAxis, StoredMatrix } from "../../src/tensor/tensor.ts";

/** Where the group of a number is among the scales. */
export function groupOf(
  { rows: _, columns, axis }: Pick<StoredMatrix, "rows" | "columns" | "axis">,
  row: number,
  column: number,
): number {
  return axis === 0
    ? Math.floor(row / 32) * columns + column
    : row * Math.ceil(columns / 32) + Math.floor(column / 32);
}

/** One code of a matrix; a half as the number that it is. */
export function codeAt({ columns, format, codes }: StoredMatrix, row: number, column: number): number {
  const i = row * columns + column;
  const view = new DataView(codes.buffer, codes.byteOffset);
  if (format === "f16") return view.getFloat16(2 * i, true);
  if (format === "q8") return view.getInt8(i);
  const pair = codes[Math.floor(i / 2)];
  return i % 2 === 0 ? pair % 16 : Math.floor(pair / 16);
}

/** The numbers that a matrix stands for, row-major, without rounding. */
export function numbersOf(stored: StoredMatrix): Float64Array {
  const { rows, columns, scales, minima } = stored;
  const numbers = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const group = groupOf(stored, row, column);
      numbers[row * columns + column] = codeAt(stored, row, column) * (scales?.[group] ?? 1) +
        (minima?.[group] ?? 0);
    }
  }
  return numbers;
}

/** Stores a matrix: the nearest halves, or the nearest of even steps over each group's range. */
export function quantize(
  data: ArrayLike<number>,
  rows: number,
  columns: number,
  format: StoredMatrix["format"],
  axis: GroupAxis,
): StoredMatrix {
  if (format === "f16") {
    const codes = new Uint8Array(Float16Array.from(data).buffer);
    return { rows, columns, format, axis, codes };
  }
  const places = Array.from(
    data,
    (_, i) => groupOf({ rows, columns, axis }, Math.floor(i / columns), i % columns),
  );
  const groups = Math.max(...places) + 1;
  const low = new Float64Array(groups).fill(Infinity), high = new Float64Array(groups).fill(-Infinity);
  places.forEach((group, i) => {
    low[group] = Math.min(low[group], data[i]);
    high[group] = Math.max(high[group], data[i]);
  });
  const scales = Float32Array.from(
    low,
    (x, g) => format === "q8" ? Math.max(-x, high[g]) / 127 : (high[g] - x) / 15,
  );
  const steps = places.map((group, i) =>
    scales[group] && Math.round((data[i] - (format === "q8" ? 0 : low[group])) / scales[group])
  );
  if (format === "q8") {
    return { rows, columns, format, axis, codes: Uint8Array.from(steps, (x) => x & 255), scales };
  }
  const codes = new Uint8Array(Math.ceil(data.length / 2));
  steps.forEach((step, i) => codes[i >> 1] += step * (i % 2 === 0 ? 1 : 16));
  return { rows, columns, format, axis, codes, scales, minima: Float32Array.from(low) };
}
