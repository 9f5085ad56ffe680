import { assertRejects } from "@std/assert";
import { GPT2, Lora, train } from "../mod.ts";

const SHAPE = { n_layer: 1, n_embd: 16, n_head: 1, n_positions: 4096, vocab_size: 64 };

/** A signal that a timer aborts: it never is, where whoever computes keeps the event loop to itself. */
function soon(): { signal: AbortSignal; [Symbol.dispose](): void } {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(new Error("that will do")), 5);
  return { signal: controller.signal, [Symbol.dispose]: () => clearTimeout(timer) };
}

Deno.test("timers run while WASM generates, so that a signal can end it", async () => {
  using model = await GPT2.random(SHAPE, { backend: "wasm" });
  using timer = soon();
  const generate = () => Array.fromAsync(model.generate([1], { maxTokens: 4000, signal: timer.signal }));
  await assertRejects(generate, Error, "that will do");
});

Deno.test("timers run while WASM trains, so that a signal can end it", async () => {
  using model = await GPT2.random(SHAPE, { backend: "wasm" });
  using lora = Lora.create(model, { rank: 1 });
  using timer = soon();
  const options = { lora, steps: 1000, batchSize: 1, sequenceLength: 8, signal: timer.signal };
  await assertRejects(
    () => Array.fromAsync(train(model, [{ tokens: [1, 2, 3] }], options)),
    Error,
    "that will do",
  );
});
