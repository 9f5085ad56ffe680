/** The pool of device memory, with a stand-in for the device. */
import { assert, assertEquals } from "@std/assert";
import { BufferPool, sizeClass } from "../src/backend/webgpu/buffers.ts";

/** A pool, and the sizes of the buffers that it has made and destroyed. */
function pool() {
  const made: number[] = [], destroyed: number[] = [];
  const create = (bytes: number) => {
    made.push(bytes);
    return { destroy: () => void destroyed.push(bytes) } as unknown as GPUBuffer;
  };
  return { pool: new BufferPool(create, 2 ** 31 - 1), made, destroyed };
}

Deno.test("sizes are rounded up by an eighth at most, to multiples of 256", () => {
  for (let bytes = 0; bytes < 3e9; bytes += 1 + Math.floor(bytes / 7)) {
    const size = sizeClass(bytes);
    assert(
      size >= bytes && size % 256 === 0 && size <= Math.max(bytes * 1.125, bytes + 256),
      `${bytes}: ${size}`,
    );
    assertEquals(sizeClass(size), size);
  }
});

Deno.test("a repeated step meets the same buffers, in whatever order it frees them", () => {
  const { pool: p, made } = pool();
  const kept = p.take(1000, 1);
  const step = () => {
    const [a, b, c] = [p.take(1000, 1), p.take(1010, 1), p.take(1024, 1)];
    p.release(b);
    const d = p.take(900, 1);
    const e = p.take(10_000, 1);
    [a, e, d, c].forEach((x) => p.release(x));
    return [a, b, c, d, e].map(({ block }) => block.id);
  };
  const first = step();
  const count = made.length;
  for (let i = 0; i < 5; i++) assertEquals(step(), first);
  assertEquals([made.length, p.liveBytes], [count, kept.block.bytes]);
});

Deno.test("what nobody uses for long goes back to the device, and its bind groups with it", () => {
  const { pool: p, destroyed } = pool();
  const [a, b, c] = [p.take(1 << 20, 1), p.take(2 << 20, 1), p.take(4096, 1)];
  const forgotten: string[] = [];
  a.block.forget.push(() => forgotten.push("a"));
  b.block.forget.push(() => forgotten.push("b"));
  a.block.used = 1;
  b.block.used = c.block.used = 90;
  p.release(a);
  p.release(b); // c stays in use
  p.trim(100, 50);
  assertEquals([destroyed, forgotten], [[1 << 20], ["a"]]);
  p.trim(1000, 50);
  assertEquals([destroyed, forgotten], [[1 << 20, 2 << 20], ["a", "b"]]);
  assertEquals(p.take(2 << 20, 1000).block.id > c.block.id, true);
});

Deno.test("what is small stays, however long nobody uses it: decoding reads its tokens now so, now so", () => {
  const { pool: p, made, destroyed } = pool();
  const small = p.take(256, 1);
  small.block.used = 1;
  p.release(small);
  p.trim(100_000);
  assertEquals(p.take(256, 100_000).block, small.block);
  assertEquals([made, destroyed], [[256], []]);
});

Deno.test("idle memory makes room before more than its double is taken", () => {
  const { pool: p, destroyed } = pool();
  const first = p.take(512 << 20, 1);
  first.block.used = 1;
  p.release(first);
  p.take(100 << 20, 3);
  assertEquals(destroyed, []); // too fresh
  p.take(110 << 20, 10);
  assertEquals(destroyed, [512 << 20]);
});

Deno.test("a buffer is never larger than the device makes them", () => {
  const { pool: p } = pool();
  assertEquals(p.take(2 ** 31 - 256, 1).block.bytes, 2 ** 31 - 256);
});

Deno.test("what is taken loosely may be up to twice as large, where that is free; else it is as large as asked", () => {
  const { pool: p, made } = pool();
  const [small, large] = [p.take(1024, 1), p.take(4096, 1)];
  p.release(large);
  assertEquals(p.take(2048, 1, true).block, large.block);
  assertEquals(p.liveBytes, 1024 + 4096);
  p.release(small);
  assertEquals(p.take(1024, 1, true).block, small.block, "the size itself is preferred");
  p.release(small);
  assertEquals(p.take(200, 1, true).block.bytes, 256, "more than twice as large is a waste");
  assertEquals(p.take(900, 1).block, small.block);
  assertEquals(made, [1024, 4096, 256]);
});
