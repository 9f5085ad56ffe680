/** Turbo: V8 computes with 256 bits what the kernels say in 128, and nothing but time tells the difference. */
import { assert, assertEquals } from "@std/assert";
import { describeBackends } from "../src/backend/select.ts";
import { openWasmBackend } from "../src/backend/wasm/backend.ts";
import { Turbo } from "../src/backend/wasm/turbo.ts";
import { whet } from "./support/cli.ts";
import { digests } from "./support/digests.ts";

/**
 * What the README says, and that every function is optimised before it first runs: V8 pairs nothing in code that it
 * compiles in haste. Only on x86 are there pairs to be made, and flags for them.
 */
const TURBO = Deno.build.arch === "x86_64"
  ? { DENO_V8_FLAGS: "--experimental-wasm-revectorize,--no-wasm-bounds-checks,--no-liftoff" }
  : undefined;

/** Runs `deno` in the repository with V8's flags. */
async function turbo(args: string[], env: Record<string, string> = {}): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args,
    cwd: new URL("..", import.meta.url),
    env: { NO_COLOR: "1", ...TURBO, ...env },
    signal: AbortSignal.timeout(120_000),
  }).output();
  const [said, complained] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assertEquals(code, 0, `${said}\n${complained}`);
  return said;
}

Deno.test("every kernel, training and generation give the same bits with V8's pairs and wide tiles", async () => {
  const program = new URL("support/digests.ts", import.meta.url).pathname;
  const [wide, narrow] = await Promise.all([
    turbo(["run", "-A", "--no-check", program, "wide"]).then(JSON.parse),
    digests(false),
  ]);
  assert(Object.keys(narrow).length > 60);
  assertEquals(wide, narrow);
});

Deno.test("with V8's flags models are what they are in PyTorch", async () => {
  const env = { WHET_TEST_WIDE: "1", WHET_EXPECT_WEBGPU: "" };
  const args = ["test", "-A", "--no-check", "--filter", "/^wasm /", "tests/parity_test.ts"];
  const said = await turbo(args, env);
  const [, passed] = /ok \| (\d+) passed \| 0 failed/.exec(said) ?? [];
  assert(Number(passed) >= 24, said);
});

Deno.test("wide tiles are taken when a trial finds them faster, and given up when the next finds them slower", () => {
  const tiles = new Turbo();
  let trials = 0;
  const takes = (work: number, narrow: number, wide: number) =>
    tiles.takes(work, () => {
      trials++;
      return [narrow, wide];
    });
  for (let i = 0; i < 1000; i++) assert(!takes(1e6, 2, 1), "small products are never held up");
  for (let i = 0; i < 9; i++) assert(!takes(1e8, 2, 1), "nothing counts before V8 had time to optimise");
  assertEquals(trials, 0);
  for (let i = 0; i < 30; i++) assert(!takes(1e8, 1, 9), "cold tiles decide nothing");
  assert(trials > 20, `${trials}`);
  // One slow measurement among them is the machine's doing.
  for (const wide of [0.6, 0.6, 1.9, 0.6]) assert(!takes(1e8, 1, wide));
  assert(takes(1e8, 1, 0.6));
  trials = 0;
  for (let i = 0; i < 10; i++) assert(takes(1e8, 1, 1.4));
  assertEquals(trials, 0, "one trial is enough for a while");
  assert(!takes(3e10, 1, 1.4), "a large product is worth all of a trial");
  assertEquals(trials, 5);
  for (let i = 0; i < 10; i++) assert(!takes(3e10, 1, 0.6));
  assertEquals(trials, 5, "two are enough for ever");
});

Deno.test("tiles that stay slow are given up", () => {
  const tiles = new Turbo();
  let trials = 0;
  for (let i = 0; i < 1000; i++) {
    assert(
      !tiles.takes(1e9, () => {
        trials++;
        return [1, 100];
      }),
    );
  }
  assert(trials < 100, `${trials}`);
});

Deno.test("a trial leaves the products beside it as they are", async () => {
  using backend = await openWasmBackend({ instructionSet: "strict", threads: 1 });
  const [M, N, K] = [512, 512, 512];
  const a = backend.upload(Float32Array.from({ length: M * K }, (_, i) => (i * 7919) % 17 - 8), [M, K]);
  const b = backend.upload(Float32Array.from({ length: K * N }, (_, i) => (i * 104729) % 13 - 6), [K, N]);
  const out = backend.allocate([M, N]);
  backend.matmul({ a, b, out });
  const once = backend.stats().dispatches;
  const first = await backend.read(out);
  for (let i = 0; i < 39; i++) backend.matmul({ a, b, out }); // 5e9 products: the first trial is over
  assertEquals(await backend.read(out), first);
  assertEquals(
    first[5],
    Array.from({ length: K }, (_, k) => ((k * 7919) % 17 - 8) * (((k * N + 5) * 104729) % 13 - 6))
      .reduce((sum, product) => sum + product),
  );
  assertEquals(backend.stats().dispatches, 40 * once);
});

Deno.test("devices says whether 256 bits are in use, and how it knows", async () => {
  const { wasm } = await describeBackends();
  assertEquals(wasm.turbo.active, wasm.description.endsWith(", 256-bit (turbo)"));
  assert(wasm.turbo.gain > 0.05 && wasm.turbo.gain < 20, `${wasm.turbo.gain}`);
  const { stdout } = await whet(["devices", "--json"]);
  const { active, gain } = JSON.parse(stdout).wasm.turbo;
  assertEquals([typeof active, typeof gain], ["boolean", "number"]);
  using backend = await openWasmBackend({ threads: 1, wide: true });
  assertEquals(backend.description.endsWith(", 256-bit (turbo)"), Deno.build.arch === "x86_64");
});
