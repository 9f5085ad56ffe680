/** Frozen weights in their packed forms. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { GROUP, layoutOf, packRows } from "../src/backend/webgpu/packing.ts";
import { WhetError } from "../src/errors.ts";

Deno.test("rows are padded to whole vectors", () => {
  assertEquals(layoutOf("f32", 5), { stride: 8, rowBytes: 32, scaleBytes: 0 });
  assertEquals(layoutOf("f16", 5), { stride: 8, rowBytes: 16, scaleBytes: 0 });
  assertEquals(layoutOf("q8", 5), { stride: 8, rowBytes: 8, scaleBytes: 32 });
  assertEquals(layoutOf("q4", 5), { stride: 8, rowBytes: 4, scaleBytes: 32 });
  assertEquals(layoutOf("q4", 9), { stride: 16, rowBytes: 8, scaleBytes: 64 });
});

/** The rms error of a column of a group in q4, relative to its range. */
function errorOfNibbles(column: Float32Array): number {
  const { codes, scales } = packRows(column, 1, 0, column.length, "q4");
  const [scale, minimum] = new Float16Array(scales.buffer);
  let error = 0;
  column.forEach((w, i) => error += (w - (scale * (codes[i] & 15) + minimum)) ** 2);
  return Math.sqrt(error / column.length) / (Math.max(...column) - Math.min(...column));
}

Deno.test("q4 fits scale and minimum to skewed weights too", () => {
  // A bell without tails, shifted: rounding to 16 even steps alone errs by 1 / (15 · √12) = 0.0192.
  const bell = Float32Array.from({ length: GROUP }, (_, i) => 5 + Math.sin(i) + Math.sin(2.3 * i + 1));
  assert(errorOfNibbles(bell) < 0.0192, `${errorOfNibbles(bell)}`);
  const outlier = bell.map((x, i) => i === 7 ? 9 : x);
  assert(errorOfNibbles(outlier) < 0.0192, `${errorOfNibbles(outlier)}`);
});

Deno.test("constant and zero columns are kept exactly", () => {
  for (const value of [0, 0.5, -3]) {
    const column = new Float32Array(40).fill(value);
    const { codes, scales } = packRows(column, 1, 0, 40, "q4");
    const [scale, minimum] = new Float16Array(scales.buffer);
    codes.forEach((word) => assertEquals(scale * (word & 15) + minimum, value));
    const bytes = packRows(column, 1, 0, 40, "q8");
    const [scale8] = new Float32Array(bytes.scales.buffer);
    assert(Math.abs(new Int8Array(bytes.codes.buffer)[0] * scale8 - value) < 1e-6);
  }
});

Deno.test("a weight that no half can hold is an error that names it", () => {
  const data = Float32Array.of(1, 2, 3, 70000);
  const error = assertThrows(() => packRows(data, 2, 0, 2, "f16"), WhetError, "70000 in row 1");
  assertEquals(error.code, "format");
  packRows(Float32Array.of(1, 2, 3, 65504), 2, 0, 2, "f16");
});
