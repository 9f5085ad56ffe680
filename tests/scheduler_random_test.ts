import { assert, assertEquals } from "@std/assert";
import { type ScheduledChunk, type ScheduledRequest, Scheduler } from "../src/generate/scheduler.ts";
import { GPT2 } from "../src/gpt2.ts";
import { Lora } from "../src/model/lora.ts";
import { CACHE_BLOCK } from "../src/tensor/backend.ts";
import { uniform } from "../src/tensor/random.ts";
import { AdapterStore } from "../src/serve/adapters.ts";

const SHAPE = { n_layer: 2, n_head: 2, n_embd: 64, n_positions: 2 * CACHE_BLOCK + 9, vocab_size: 150 };
/** Lengths that end at a block's edge, or beside it, or at the window's. */
const EDGES = [1, 2, CACHE_BLOCK - 1, CACHE_BLOCK, CACHE_BLOCK + 1, 2 * CACHE_BLOCK, SHAPE.n_positions - 1];
const TARGETS = [["c_attn"], ["c_fc"], ["c_attn", "c_proj"], ["c_attn", "c_fc", "c_proj"]];
const ADAPTERS = 12;

/** Numbers of one seed, one after the other. */
class Dice {
  #next = 0;
  constructor(private readonly seed: number) {}
  /** A whole number below n. */
  roll(n: number): number {
    return Math.floor(uniform(this.#next++, [this.seed, 77]) * n);
  }
  of<Item>(items: readonly Item[]): Item {
    return items[this.roll(items.length)];
  }
}

/** Adapters of a few shapes, all of which change what the model says. */
function adapter(model: GPT2, number: number): Lora {
  const shape = number % TARGETS.length;
  const lora = Lora.create(model, { rank: 1 + shape, targets: TARGETS[shape], seed: number });
  for (const { B } of lora.modules.values()) {
    for (let i = 0; i < B.length; i++) B[i] = Math.sin(i * 0.7 + number) * 0.3;
  }
  return lora;
}

/** A request, the number of its adapter or −1, and how it ends: by itself, or after so many chunks by one means or other. */
interface Visit {
  request: ScheduledRequest;
  adapter: number;
  comes: number;
  leaves: { after: number; how: "abort" | "return" } | null;
}

function visit(dice: Dice, index: number): Visit {
  const length = Math.min(SHAPE.n_positions, dice.roll(3) === 0 ? dice.of(EDGES) : 1 + dice.roll(100));
  const room = SHAPE.n_positions - length;
  const maxTokens = dice.roll(5) === 0 ? 0 : Math.min(room, 1 + dice.roll(14));
  const request: ScheduledRequest = {
    tokens: Array.from({ length }, () => dice.roll(SHAPE.vocab_size)),
    maxTokens,
    seed: index,
    choice: dice.roll(3),
    temperature: dice.of([0, 0.7, 1]),
    topK: dice.of([0, 5]),
    topP: dice.of([1, 0.9]),
    repetitionPenalty: dice.of([1, 1, 1.3]),
    scorePrompt: maxTokens === 0 || dice.roll(4) === 0,
    alternatives: dice.of([0, 0, 2]),
  };
  const leaves = { after: dice.roll(5), how: dice.of(["abort", "return"] as const) };
  return {
    ...{ request, adapter: dice.roll(ADAPTERS + 4) - 4, comes: dice.roll(15) },
    leaves: dice.roll(4) === 0 ? leaves : null,
  };
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

for (const weights of ["f32", "q8"] as const) {
  Deno.test(`whoever comes and goes, each request gets what it gets alone, and nothing is kept (${weights})`, async () => {
    using model = await GPT2.random(SHAPE, { backend: "wasm", weights, threads: 1 });
    const { allocations } = model.backend.stats();
    for (const seed of [1, 2, 3, 4, 5, 6]) {
      const dice = new Dice(seed);
      const visits = Array.from({ length: 30 }, (_, index) => visit(dice, index));

      const alone: ScheduledChunk[][] = [];
      for (const { request, adapter: number } of visits) {
        using scheduler = new Scheduler(model, { slots: 1 });
        const own = number < 0 ? null : scheduler.bank.add(adapter(model, number));
        alone.push(await Array.fromAsync(scheduler.submit({ ...request, adapter: own })));
      }

      using scheduler = new Scheduler(model, {
        slots: 2 + dice.roll(7),
        cacheBytes: (3 + dice.roll(8)) * CACHE_BLOCK * SHAPE.n_embd * SHAPE.n_layer * 2 * 2,
        rowsBeside: 1 + dice.roll(20),
        rowsAlone: 1 + dice.roll(90),
      });
      const { freeBlocks, blocks } = scheduler.state;
      assertEquals(freeBlocks, blocks);
      const bytes = scheduler.bank.chunkBytes(adapter(model, 3)); // Room for eight of the largest.
      const store = new AdapterStore(model, scheduler.bank, {
        bytes,
        async load(source) {
          await pause(Number(source) % 3);
          return adapter(model, Number(source));
        },
      });
      for (let number = 0; number < ADAPTERS; number++) store.add(`${number}`, `${number}`);

      let survivors = 0;
      await Promise.all(visits.map(async ({ request, adapter: number, comes, leaves }, index) => {
        await pause(comes);
        // Names are taken away and given back while others use them.
        if (index % 7 === 0) store.add(`${index % ADAPTERS}`, `${index % ADAPTERS}`);
        const lease = number < 0 ? null : await store.acquire(`${number}`);
        const controller = new AbortController();
        const submitted = scheduler.submit({
          ...{ ...request, adapter: lease?.adapter, signal: controller.signal },
        });
        const chunks: ScheduledChunk[] = [];
        try {
          if (leaves?.after === 0) {
            if (leaves.how === "abort") controller.abort("enough");
            else return await submitted.return();
          }
          for await (const chunk of submitted) {
            chunks.push(chunk);
            if (chunks.length !== leaves?.after) continue;
            if (leaves.how === "return") break;
            controller.abort("enough");
          }
        } catch (error) {
          assertEquals(error, "enough");
        } finally {
          lease?.release();
        }
        assert(scheduler.bank.bytes <= bytes, "adapters take more than their budget");
        assertEquals(chunks, alone[index].slice(0, chunks.length), `seed ${seed}, request ${index}`);
        if (leaves) return;
        assertEquals(chunks.length, alone[index].length, `seed ${seed}, request ${index} ended early`);
        survivors++;
      }));
      assert(survivors > 15);
      await pause(5);
      const { running, waiting, freeBlocks: now } = scheduler.state;
      assertEquals({ running, waiting, now }, { running: 0, waiting: 0, now: blocks });
      for (let number = 0; number < ADAPTERS; number++) store.delete(`${number}`);
      assertEquals(scheduler.bank.bytes, 0);
    }
    assertEquals(model.backend.stats().allocations, allocations);
    assertEquals(model.arena.size, 0);
  });
}
