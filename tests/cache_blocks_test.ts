import { assertEquals, assertThrows } from "@std/assert";
import { openWasmBackend } from "../src/backend/wasm/backend.ts";
import { WhetError } from "../src/errors.ts";
import { CACHE_BLOCK } from "../src/tensor/backend.ts";
import type { Backend } from "../src/tensor/backend.ts";
import type { DType } from "../src/tensor/tensor.ts";

const [H, D] = [2, 20], C = H * D;
/** Tokens of three sequences that come in these steps: a prompt each, then one by one. */
const STEPS = [[[0, 100], [1, 3]], [[2, 17], [0, 1], [1, 1]], [[1, 90], [0, 70]], [[0, 1], [1, 1], [2, 1]]];
const CAPACITY = 3 * CACHE_BLOCK;

function numbers(length: number, seed: number): Float32Array {
  return Float32Array.from({ length }, (_, i) => Math.sin(i * 1.7 + seed * 31));
}

/** All outputs of the steps, with each slot in a part of its own or in blocks in the order of `blocks`. */
async function outputs(backend: Backend, dtype: DType, blocks?: readonly number[]): Promise<Float32Array[]> {
  const shape = blocks ? [blocks.length, CACHE_BLOCK, C] : [3, CAPACITY - 7, C];
  const [keys, values] = [backend.allocate(shape, dtype), backend.allocate(shape, dtype)];
  const table = blocks && new Uint32Array(9);
  const seen = [0, 0, 0];
  let used = 0;
  const results: Float32Array[] = [];
  for (const [step, parts] of STEPS.entries()) {
    const slots: number[] = [], positions: number[] = [];
    for (const [slot, count] of parts) {
      for (let i = 0; i < count; i++) {
        if (table && seen[slot] % CACHE_BLOCK === 0) {
          table[slot * 3 + seen[slot] / CACHE_BLOCK] = blocks[used++];
        }
        slots.push(slot), positions.push(seen[slot]++);
      }
    }
    const T = slots.length;
    const out = backend.allocate([T, C]);
    backend.cachedAttention({
      ...{ keys, values, out, heads: H, scale: 0.3 },
      qkv: backend.upload(numbers(T * 3 * C, step), [T, 3 * C]),
      slots: backend.upload(Uint32Array.from(slots)),
      positions: backend.upload(Uint32Array.from(positions)),
      blocks: table && backend.upload(table, [3, 3]),
    });
    results.push(await backend.read(out));
  }
  return results;
}

for (const dtype of ["f32", "f16"] as const) {
  for (const threads of [1, 2]) {
    Deno.test(`a cache in scattered blocks gives the bits of one in one piece (${dtype}, threads: ${threads})`, async () => {
      using backend = await openWasmBackend({ threads, price: 0, least: 0 });
      const whole = await outputs(backend, dtype);
      assertEquals(await outputs(backend, dtype, [7, 2, 9, 0, 5, 1, 8, 3, 6, 4]), whole);
    });
  }
}

Deno.test("a block that is not there, or of another size, is an error", async () => {
  using backend = await openWasmBackend({ threads: 1 });
  const call = (blocks: number, length = CACHE_BLOCK) => {
    const cache = backend.allocate([2, length, C]);
    backend.cachedAttention({
      ...{ keys: cache, values: backend.allocate([2, length, C]), heads: H, scale: 1 },
      ...{ qkv: backend.allocate([1, 3 * C]), out: backend.allocate([1, C]) },
      slots: backend.upload(Uint32Array.of(0)),
      positions: backend.upload(Uint32Array.of(0)),
      blocks: backend.upload(Uint32Array.of(blocks), [1, 1]),
    });
  };
  call(1);
  assertThrows(() => call(2), WhetError, "blocks");
  assertThrows(() => call(1, 64), WhetError, "64 positions");
});
