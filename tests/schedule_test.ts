import { assertAlmostEquals, assertEquals } from "@std/assert";
import { scheduleFactor } from "../src/train/schedule.ts";

/** The factor of transformers' get_linear_schedule_with_warmup. */
function linear(step: number, warmup: number, total: number): number {
  if (step < warmup) return step / Math.max(1, warmup);
  return Math.max(0, (total - step) / Math.max(1, total - warmup));
}

/** The factor of transformers' get_cosine_schedule_with_warmup, with its num_cycles of 0.5. */
function cosine(step: number, warmup: number, total: number): number {
  if (step < warmup) return step / Math.max(1, warmup);
  const progress = (step - warmup) / Math.max(1, total - warmup);
  return Math.max(0, 0.5 * (1 + Math.cos(Math.PI * 0.5 * 2 * progress)));
}

/** The factor of transformers' get_constant_schedule_with_warmup. */
function constant(step: number, warmup: number): number {
  return step < warmup ? step / Math.max(1, warmup) : 1;
}

Deno.test("schedules are transformers', at every step, with and without warm-up", () => {
  for (const [warmup, total] of [[0, 1], [0, 7], [1, 7], [3, 10], [10, 10], [12, 10], [100, 1000]]) {
    for (let step = 0; step < total; step++) {
      const at = (name: "linear" | "cosine" | "constant") => scheduleFactor(name, step, warmup, total);
      assertAlmostEquals(at("linear"), linear(step, warmup, total), 1e-12);
      assertAlmostEquals(at("cosine"), cosine(step, warmup, total), 1e-12);
      assertAlmostEquals(at("constant"), constant(step, warmup), 1e-12);
    }
  }
});

Deno.test("schedules have the values that transformers' own tests expect", () => {
  // A learning rate of 10, 2 steps of warm-up, 10 steps in all.
  const expected = {
    linear: [0, 5, 10, 8.75, 7.5, 6.25, 5, 3.75, 2.5, 1.25],
    cosine: [0, 5, 10, 9.61, 8.53, 6.91, 5, 3.08, 1.46, 0.38],
  };
  for (const name of ["linear", "cosine"] as const) {
    expected[name].forEach((rate, step) =>
      assertAlmostEquals(10 * scheduleFactor(name, step, 2, 10), rate, 0.01)
    );
  }
});

Deno.test("past its end a schedule stays at 0", () => {
  assertEquals(scheduleFactor("linear", 15, 2, 10), 0);
  assertAlmostEquals(scheduleFactor("cosine", 15, 2, 10), 0, 1e-12);
});
