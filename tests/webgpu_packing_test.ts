/** Frozen weights in their packed forms. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { layoutOf } from "../src/backend/webgpu/packing.ts";
import { WhetError } from "../src/errors.ts";
import type { WeightFormat } from "../src/tensor/tensor.ts";
import { numbersOf, quantize } from "./support/stored.ts";
import { gpuTest, numbers } from "./support/webgpu.ts";

Deno.test("rows are padded to whole vectors", () => {
  const sizes = (format: WeightFormat, columns: number) => {
    return ([0, 1] as const).map((axis) => {
      const { stride, rowBytes, scaleStride } = layoutOf(format, columns, axis);
      return [stride, rowBytes, scaleStride];
    });
  };
  assertEquals(sizes("f32", 5), [[8, 32, 0], [8, 32, 0]]);
  assertEquals(sizes("f16", 5), [[8, 16, 0], [8, 16, 0]]);
  assertEquals(sizes("q8", 5), [[8, 8, 8], [8, 8, 1]]);
  assertEquals(sizes("q4", 5), [[8, 4, 8], [8, 4, 1]]);
  assertEquals(sizes("q4", 33), [[40, 20, 40], [40, 20, 2]]);
});

gpuTest("f16 rounds to the nearest half, and keeps halves", async (backend) => {
  const data = numbers(70 * 33, 1).map((x, i) => x * 10 ** (i % 9 - 4));
  data.set([65504, -65504, 0, -0, 2 ** -14, 2 ** -24, 1 / 3]);
  const content = await backend.unpack(backend.pack(data, 70, 33, "f16"));
  const expected = new Float16Array(data);
  content.forEach((x, i) => assert(x === expected[i], `${i}: ${data[i]} became ${x}`));
});

gpuTest("q8 keeps each column's largest exactly, and is within half a step elsewhere", async (backend) => {
  const [rows, columns] = [70, 33];
  const data = numbers(rows * columns).map((x, i) => x * 10 ** (i % 7 - 3));
  const content = await backend.unpack(backend.pack(data, rows, columns, "q8"));
  for (let c = 0; c < columns; c++) {
    for (let r0 = 0; r0 < rows; r0 += 32) {
      const at = Array.from({ length: Math.min(32, rows - r0) }, (_, r) => (r0 + r) * columns + c);
      const largest = Math.max(...at.map((i) => Math.abs(data[i])));
      for (const i of at) {
        assert(Math.abs(content[i] - data[i]) <= largest / 127 * 0.50001, `${i}: ${content[i]}`);
      }
    }
  }
});

/** The rms error of numbers in q4, relative to their range. */
async function errorInNibbles(backend: Parameters<Parameters<typeof gpuTest>[1]>[0], column: Float32Array) {
  const content = await backend.unpack(backend.pack(column, column.length, 1, "q4"));
  const squares = content.reduce((sum, x, i) => sum + (x - column[i]) ** 2, 0);
  return Math.sqrt(squares / column.length) / (Math.max(...column) - Math.min(...column));
}

gpuTest("q4 fits scale and minimum to skewed weights too", async (backend) => {
  // 16 even steps over the range alone err by 1 / (15 · √12) = 0.0192 of it.
  const bell = Float32Array.from({ length: 32 }, (_, i) => 0.5 + Math.sin(i) + Math.sin(2.3 * i + 1));
  for (const column of [bell, bell.map((x, i) => i === 7 ? 5 : x), bell.map((x) => x * 1e-3)]) {
    const error = await errorInNibbles(backend, column);
    assert(error < 0.0192, `${error}`);
  }
});

gpuTest("constant and zero columns are kept", async (backend) => {
  for (const value of [0, 0.5, -3]) {
    const data = new Float32Array(40 * 3).fill(value);
    for (const format of ["f32", "f16", "q4"] as const) {
      assertEquals(await backend.unpack(backend.pack(data, 40, 3, format)), data);
    }
    const bytes = await backend.unpack(backend.pack(data, 40, 3, "q8"));
    assert(bytes.every((x) => Math.abs(x - value) < 1e-6));
  }
});

gpuTest("packed weights take the memory that their format says", (backend) => {
  const taken = (["f32", "f16", "q8", "q4"] as const).map((format) => {
    const before = backend.stats().allocatedBytes;
    backend.pack(numbers(256 * 256), 256, 256, format);
    return (backend.stats().allocatedBytes - before) / 256 / 256 * 8;
  });
  assertEquals(taken, [32, 16, 9, 5]); // bits a weight
});

gpuTest("a matrix in parts becomes what files hold and again what it was", async (backend) => {
  for (const [rows, columns] of [[600, 71], [600, 72]]) {
    for (const format of ["f16", "q8", "q4"] as const) {
      for (const axis of [0, 1] as const) {
        const what = `${format}, axis ${axis}, ${columns} columns`;
        const matrix = backend.pack(numbers(rows * columns), rows, columns, format, axis);
        const [stored, content] = await Promise.all([backend.unpackStored(matrix), backend.unpack(matrix)]);
        const expected = numbersOf(stored);
        assert(content.every((x, i) => Math.abs(x - expected[i]) < 1e-6), what);
        const again = backend.packStored(stored);
        assertEquals(await backend.unpack(again), content, what);
        assertEquals(await backend.unpackStored(again), stored, what);
      }
    }
  }
}, { maxBindingBytes: 9216 });

gpuTest("scales that a half cannot hold are an error that names them, and leave nothing", (backend) => {
  const stored = quantize(numbers(40), 40, 1, "q4", 0);
  for (const part of ["scales", "minima"] as const) {
    const wrong = { ...stored, [part]: Float32Array.of(0.5, -70000) };
    assertEquals(assertThrows(() => backend.packStored(wrong), WhetError, "-70000").code, "format");
  }
  assertEquals(backend.stats().allocations, 0);
});

gpuTest("a weight that a half cannot hold is an error that names it", (backend) => {
  const data = Float32Array.of(1, 2, 3, 70000);
  for (const format of ["f16", "q4"] as const) {
    const error = assertThrows(() => backend.pack(data, 2, 2, format), WhetError, "70000 in row 1");
    assertEquals(error.code, "format");
  }
  backend.pack(data, 2, 2, "q8");
  assertThrows(() => backend.pack(data, 3, 2, "f32"), WhetError, "4 numbers were packed as 3 × 2");
});
