import { assert, assertEquals, assertRejects } from "@std/assert";
import { WhetError } from "../src/errors.ts";
import { GPT2 } from "../src/gpt2.ts";
import { AdapterBank } from "../src/model/adapter_bank.ts";
import { Lora } from "../src/model/lora.ts";
import { AdapterStore } from "../src/serve/adapters.ts";

const SHAPE = { n_layer: 1, n_head: 2, n_embd: 64, n_positions: 32, vocab_size: 50 };

/** A store with room for two chunks of eight, and the sources that were loaded. */
async function scene(chunks = 2, gate: () => Promise<void> = () => Promise.resolve()) {
  const model = await GPT2.random(SHAPE, { backend: "wasm", threads: 1 });
  const bank = new AdapterBank(model.backend);
  const loaded: string[] = [];
  const each = bank.chunkBytes(Lora.create(model, { rank: 2 }));
  const store = new AdapterStore(model, bank, {
    bytes: chunks * each,
    async load(source) {
      loaded.push(source);
      await gate();
      if (source === "broken") throw new WhetError("format", "broken: not an adapter");
      return Lora.create(model, { rank: 2, seed: Number(source) });
    },
  });
  const all = { model, bank, store, loaded };
  return { ...all, [Symbol.dispose]: () => (bank[Symbol.dispose](), model[Symbol.dispose]()) };
}

Deno.test("an adapter is loaded when it is first asked for, once for all who ask meanwhile", async () => {
  using s = await scene();
  s.store.add("a", "1");
  assertEquals(s.loaded, []);
  const leases = await Promise.all([1, 2, 3].map(() => s.store.acquire("a")));
  assertEquals(s.loaded, ["1"]);
  assert(leases.every(({ adapter }) => adapter === leases[0].adapter));
  for (const lease of leases) lease.release();
  (await s.store.acquire("a")).release();
  assertEquals(s.loaded, ["1"]);
  await assertRejects(() => s.store.acquire("b"), WhetError, 'no adapter "b"');
});

Deno.test("of a thousand adapters those that were not used for longest go; memory stays within its budget", async () => {
  using s = await scene(3);
  for (let i = 0; i < 1000; i++) s.store.add(`n${i}`, `${i}`);
  let most = 0;
  for (let i = 0; i < 1000; i++) {
    const name = `n${(i * 389) % 1000}`;
    const lease = await s.store.acquire(name);
    most = Math.max(most, s.bank.bytes);
    lease.release();
    if (i % 5 === 0) (await s.store.acquire("n7")).release(); // Always in use.
  }
  const { loaded, known, evictions } = s.store.state;
  assertEquals([loaded, known], [24, 1000]);
  assert(most <= 3 * s.bank.chunkBytes(Lora.create(s.model, { rank: 2 })));
  assert(evictions > 900);
  assert(
    s.loaded.filter((source) => source === "7").length <= 2,
    "the one that is always used was thrown out",
  );
});

Deno.test("an adapter in use stays; who finds no room waits until one is released, or until told to stop", async () => {
  using s = await scene(1);
  for (let i = 0; i < 10; i++) s.store.add(`n${i}`, `${i}`);
  const leases = await Promise.all(Array.from({ length: 8 }, (_, i) => s.store.acquire(`n${i}`)));
  let came = false;
  const ninth = s.store.acquire("n8").then((lease) => (came = true, lease));
  const controller = new AbortController();
  const tenth = s.store.acquire("n9", controller.signal);
  await new Promise((resolve) => setTimeout(resolve, 5));
  assert(!came);
  controller.abort(new Error("enough"));
  await assertRejects(() => tenth, Error, "enough");
  leases[3].release();
  (await ninth).release();
  assertEquals(s.store.state.loaded, 8);
  for (const lease of leases) lease.release();
});

Deno.test("a name that is taken away, or given to another source, changes nothing for who has it", async () => {
  using s = await scene();
  s.store.add("a", "1");
  const old = await s.store.acquire("a");
  s.store.add("a", "2");
  const now = await s.store.acquire("a");
  assert(old.adapter !== now.adapter);
  assert(s.store.delete("a"));
  assert(!s.store.delete("a"));
  await assertRejects(() => s.store.acquire("a"), WhetError, "no adapter");
  assert(s.bank.bytes > 0);
  old.release(), now.release();
  now.release(); // Twice is once.
  assertEquals(s.bank.bytes, 0);
});

Deno.test("one that cannot be loaded fails who asked, and is tried again; one for another model is refused", async () => {
  using s = await scene();
  s.store.add("a", "broken");
  for (let i = 0; i < 2; i++) await assertRejects(() => s.store.acquire("a"), WhetError, "not an adapter");
  assertEquals(s.loaded.length, 2);
  using small = await scene(0.5);
  small.store.add("a", "1");
  await assertRejects(() => small.store.acquire("a"), WhetError, "does not fit");
});

Deno.test("a load under way keeps nobody from an adapter that is there", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  let gated = false;
  using s = await scene(2, () => gated ? promise : Promise.resolve());
  s.store.add("there", "1"), s.store.add("slow", "2");
  (await s.store.acquire("there")).release();
  gated = true;
  const slow = s.store.acquire("slow");
  (await s.store.acquire("there")).release();
  resolve();
  (await slow).release();
});

Deno.test("a name that is taken away while it is loaded takes no memory when nobody waits for it any more", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  using s = await scene(1, () => promise);
  s.store.add("a", "1"), s.store.add("b", "broken");
  const controller = new AbortController();
  const waits = s.store.acquire("a", controller.signal);
  controller.abort(new Error("enough"));
  await assertRejects(() => waits, Error, "enough");
  // Who comes too late hears of that, and nobody of what then fails.
  await assertRejects(() => s.store.acquire("b", controller.signal), Error, "enough");
  s.store.delete("a");
  resolve();
  await new Promise((resolve) => setTimeout(resolve, 5));
  assertEquals(s.loaded[0], "1");
  assertEquals(s.bank.bytes, 0);
});

Deno.test("an adapter of another shape gets room without throwing out those whose going gives none", async () => {
  using model = await GPT2.random(SHAPE, { backend: "wasm", threads: 1 });
  using bank = new AdapterBank(model.backend);
  const each = bank.chunkBytes(Lora.create(model, { rank: 2 }));
  const loaded: string[] = [];
  const store = new AdapterStore(model, bank, {
    bytes: 2 * each,
    load(source) {
      loaded.push(source);
      const rank = source.startsWith("wide") ? 4 : 2;
      return Promise.resolve(Lora.create(model, { rank, seed: 1 }));
    },
  });
  for (let i = 0; i < 8; i++) store.add(`n${i}`, `n${i}`);
  store.add("wide", "wide"), store.add("small", "small");
  const pinned = await store.acquire("n0");
  for (let i = 1; i < 8; i++) (await store.acquire(`n${i}`)).release();
  const wide = store.acquire("wide"); // Needs two chunks, of which one is held.
  await new Promise((resolve) => setTimeout(resolve, 5));
  assertEquals(store.state.loaded, 8);
  pinned.release();
  (await wide).release();
  assertEquals(store.state.loaded, 1);
  assert(bank.bytes <= 2 * each);
});

Deno.test("a load that ends after the bank does fails who waits, and takes no memory", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  using s = await scene(1, () => promise);
  const { allocations } = s.model.backend.stats();
  s.store.add("a", "1");
  const waits = s.store.acquire("a");
  s.bank[Symbol.dispose]();
  resolve();
  await assertRejects(() => waits, WhetError, "disposed");
  assertEquals(s.model.backend.stats().allocations, allocations);
});
