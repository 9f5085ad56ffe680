/**
 * Whet's reward models against transformers': `tests/fixtures/deberta`, which `make.py` there writes and describes.
 */
import { assert, assertEquals } from "@std/assert";
import { debertaShapes } from "../src/model/deberta.ts";
import { parseDebertaConfig } from "../src/model/deberta_config.ts";
import { relativeRows } from "../src/model/deberta_positions.ts";
import { RewardModel } from "../src/score/reward.ts";
import type { Backend } from "../src/tensor/backend.ts";
import { candidates } from "./support/backends.ts";
import { EXPECTED, FIXTURES, withModel } from "./support/deberta.ts";
import { ReferenceBackend } from "./support/reference.ts";

const { pairs, cases } = EXPECTED;

/** Largest absolute difference. */
function difference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  assertEquals(actual.length, expected.length);
  return Array.from(actual).reduce(
    (worst, x, i) => Math.max(worst, Number.isFinite(x) ? Math.abs(x - expected[i]) : Infinity),
    0,
  );
}

/** The scores of some of the models are transformers', within a bound. */
async function agree(t: Deno.TestContext, backend: Backend, names: readonly string[], bound: number) {
  for (const name of names) {
    await t.step(name, () =>
      withModel(cases[name], async (directory) => {
        using reward = await RewardModel.load(directory, { backend });
        const worst = difference(await reward.score(pairs), cases[name].scores);
        assert(worst < bound, `${worst}`);
      }));
  }
}

Deno.test("in float64 the scores are transformers', for every switch of the configuration", async (t) => {
  using backend = new ReferenceBackend();
  await agree(t, backend, Object.keys(cases), 1e-6);
  assertEquals(backend.stats().allocations, 0, "a disposed model leaves nothing");
});

for (const { name, create, ignore } of await candidates()) {
  // A software GPU compiles for seconds: there each kernel once, and what is put together of several.
  const names = name === "webgpu"
    ? ["as DeBERTa-v3", "content to position alone", "many switches at once", "many others, heads of 5"]
    : Object.keys(cases);
  Deno.test({
    name: `${name}: the scores are transformers' within 1e-4, for every switch of the configuration`,
    ignore,
    async fn(t) {
      using backend = await create();
      await agree(t, backend, names, 1e-4);
    },
  });
}

Deno.test("the parameters and their shapes are those of transformers", () => {
  for (const { config, shapes } of Object.values(cases)) {
    const own = debertaShapes(parseDebertaConfig(config, "config.json"));
    const unused = config.norm_rel_ebd === "layer_norm" && config.relative_attention === false;
    const wanted = Object.entries(shapes).filter(([name]) =>
      !unused || !name.startsWith("deberta.encoder.LayerNorm")
    );
    assertEquals(Object.fromEntries(own), Object.fromEntries(wanted));
  }
});

Deno.test("relative positions have transformers' buckets, to both sides alike, and no row more than is reached", () => {
  for (const [position_buckets, max_relative_positions, expected] of EXPECTED.buckets) {
    const config = parseDebertaConfig(
      { ...cases["as DeBERTa-v3"].config, position_buckets, max_relative_positions },
      "config.json",
    );
    const L = expected.length;
    const { first, count, buckets } = relativeRows(config, L);
    const rows = Array.from(buckets, (bucket) => bucket + first - position_buckets);
    const limit = (row: number) => Math.max(-position_buckets, Math.min(position_buckets - 1, row));
    assertEquals(rows.slice(L - 1), expected.map(limit));
    assertEquals(rows.slice(0, L).reverse(), expected.map((bucket) => limit(-bucket)));
    assertEquals([buckets[0], buckets.at(-1)], [0, count - 1]);
    assert(buckets.every((bucket, i) => i === 0 || bucket >= buckets[i - 1]));
  }
});

Deno.test("what transformers and torch save is loaded as it stands", async () => {
  using backend = new ReferenceBackend();
  const tokenizer = await Deno.readFile(new URL("tokenizer.json", FIXTURES));
  for (const folder of ["saved", "pickled"]) {
    const directory = await Deno.makeTempDir();
    try {
      for (const { name } of Deno.readDirSync(new URL(`${folder}/`, FIXTURES))) {
        await Deno.copyFile(new URL(`${folder}/${name}`, FIXTURES), `${directory}/${name}`);
      }
      await Deno.writeFile(`${directory}/tokenizer.json`, tokenizer);
      using reward = await RewardModel.load(directory, { backend });
      assertEquals([reward.config.hidden_size, reward.config.pos_att_type], [16, ["c2p", "p2c"]]);
      assert(difference(await reward.score(pairs), EXPECTED.saved) < 1e-6);
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  }
});
