/** The WebAssembly backend's memory: its allocator, its bounds, what it says when it is full. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import { bits } from "../src/tensor/random.ts";
import { createWasmBackend } from "../src/backend/wasm/backend.ts";
import { Heap } from "../src/backend/wasm/heap.ts";

const MIB = 2 ** 20;

/** Allocates and frees at random; returns the addresses, and leaves `kept` allocated. */
function shuffle(heap: Heap, steps: number, kept: Map<number, number>): number[] {
  const addresses: number[] = [];
  for (let i = 0; i < steps; i++) {
    const random = bits(i, [1, 2]);
    if (random % 5 < 3 || kept.size === 0) {
      const size = (random >>> 8) % 3 ? random % 5000 : random % 300_000;
      const at = heap.allocate(size);
      addresses.push(at);
      kept.set(at, size);
    } else {
      const at = [...kept.keys()][random % kept.size];
      heap.free(at);
      kept.delete(at);
    }
  }
  return addresses;
}

Deno.test("the heap's allocations are aligned, apart, and at the same addresses every time", () => {
  const [heap, again] = [new Heap(), new Heap()];
  const kept = new Map<number, number>();
  const addresses = shuffle(heap, 3000, kept);
  assertEquals(shuffle(again, 3000, new Map()), addresses);
  let end = 0;
  for (const [at, size] of [...kept].sort(([a], [b]) => a - b)) {
    assertEquals(at % 64, 0);
    assert(at >= end, `${at} lies inside the allocation before it, which ends at ${end}`);
    end = at + size;
  }
  assert(end + 64 <= heap.memory.buffer.byteLength, "a vector load from the last byte stays inside");
});

Deno.test("the heap joins what is freed, so that all of it can be had in one piece again", () => {
  const heap = new Heap();
  const kept = new Map<number, number>();
  shuffle(heap, 2000, kept);
  for (const at of kept.keys()) heap.free(at);
  assertEquals(heap.allocatedBytes, 0);
  const held = heap.memory.buffer.byteLength;
  heap.allocate(held - 8192);
  assertEquals(heap.memory.buffer.byteLength, held);
});

Deno.test("the heap grows by steps, and keeps what lies in it", () => {
  const heap = new Heap();
  const first = heap.allocate(4096);
  heap.f32[first / 4] = 1.5;
  let grown = 0;
  for (let i = 0; i < 64; i++) {
    const before = heap.memory.buffer;
    heap.allocate(MIB);
    if (heap.memory.buffer !== before) grown++;
  }
  assert(grown > 4 && grown < 64, `grew ${grown} times`);
  assert(heap.memory.buffer.byteLength < 80 * MIB, "holds little more than was asked for");
  assertEquals(heap.f32[first / 4], 1.5);
});

Deno.test("a full heap says what was wanted, what is held and what to do, and goes on working", () => {
  const heap = new Heap(64); // 4 MiB
  const half = heap.allocate(2 * MIB);
  for (const size of [2 * MIB, 5e9, 1e15]) {
    const error = assertThrows(() => heap.allocate(size), WhetError);
    assertEquals(error.code, "resource");
    assert(/wanted, 2\.0 MiB in use .*--weights/.test(error.message), error.message);
  }
  heap.free(half);
  heap.allocate(3.5 * MIB);
});

Deno.test("what is freed twice is an error, not a second hole", () => {
  const heap = new Heap();
  const at = heap.allocate(100);
  heap.free(at);
  assertEquals(assertThrows(() => heap.free(at), WhetError).code, "disposed");
});

Deno.test("kernels work on addresses beyond 2 and 3 GiB", async () => {
  using backend = await createWasmBackend();
  for (const elements of [2 ** 29 + 1000, 2 ** 28]) { // grown into, never touched
    backend.allocate([elements]);
    const [M, K, N] = [7, 40, 33];
    const numbers = (length: number) => Float32Array.from({ length }, (_, i) => Math.sin(i));
    const [a, b] = [numbers(M * K), numbers(K * N)];
    const x = backend.upload(a, [M, K]);
    const out = backend.allocate([M, N]);
    for (const weight of [backend.upload(b, [K, N]), backend.pack(b, K, N, "f32")]) {
      backend.fill({ out, value: NaN });
      backend.matmul({ a: x, b: weight, out });
      const product = await backend.read(out);
      product.forEach((value, i) => {
        let sum = 0;
        for (let k = 0; k < K; k++) sum += a[Math.floor(i / N) * K + k] * b[k * N + i % N];
        assert(Math.abs(value - sum) < 1e-5, `${i}: ${value}, expected ${sum}`);
      });
    }
  }
});

Deno.test("a tensor that cannot be held is a resource error before anything is allocated", async () => {
  using backend = await createWasmBackend();
  const error = assertThrows(() => backend.allocate([2 ** 30, 3]), WhetError);
  assertEquals([error.code, backend.stats().allocations, backend.stats().allocatedBytes], ["resource", 0, 0]);
});
