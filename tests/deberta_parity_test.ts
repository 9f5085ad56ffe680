/**
 * Whet's reward models against transformers': `tests/fixtures/deberta`, which `make.py` there writes and describes.
 */
import { assert, assertEquals } from "@std/assert";
import { RewardModel } from "../src/score/reward.ts";
import { candidates } from "./support/backends.ts";
import { EXPECTED, withModel } from "./support/deberta.ts";
import { ReferenceBackend } from "./support/reference.ts";

/** Largest absolute difference. */
function difference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  assertEquals(actual.length, expected.length);
  return Array.from(actual).reduce(
    (worst, x, i) => Math.max(worst, Number.isFinite(x) ? Math.abs(x - expected[i]) : Infinity),
    0,
  );
}

const { pairs, cases } = EXPECTED;

Deno.test("in float64 the scores are transformers', for every switch of the configuration", async (t) => {
  for (const [name, model] of Object.entries(cases)) {
    await t.step(name, () =>
      withModel(model, async (directory) => {
        using backend = new ReferenceBackend();
        using reward = await RewardModel.load(directory, { backend });
        const worst = difference(await reward.score(pairs), model.scores);
        assert(worst < 1e-6, `${worst}`);
      }));
  }
});
