/**
 * The commands from outside: what they print where, and how they end.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { commands } from "../src/cli/commands.ts";
import { VERSION } from "../src/version.ts";
import { fixture, inTempDir, MODEL, type Outcome, refused, whet, writeExchanges } from "./support/cli.ts";

/** The one JSON object that is all of standard output. */
function json({ code, stdout, stderr }: Outcome): Record<string, unknown> {
  assertEquals(code, 0, stderr);
  assertMatch(stdout, /^\{.*\}\n$/);
  return JSON.parse(stdout);
}

const wasm = ["--backend", "wasm"];

Deno.test("help tells the commands, and of each its flags and permissions, on standard output", async () => {
  const [all, ...each] = await Promise.all([
    whet(["--help"], { permissions: [] }),
    ...Object.keys(commands).map((name) => whet([name, "--help"], { permissions: [] })),
  ]);
  assertEquals([all.code, all.stderr], [0, ""]);
  for (const [i, [name, { flags, summary }]] of Object.entries(commands).entries()) {
    assertMatch(all.stdout, new RegExp(`^  ${name} `, "m"));
    const { code, stdout, stderr } = each[i];
    assertEquals([code, stderr], [0, ""], name);
    assertStringIncludes(stdout, summary);
    assertStringIncludes(stdout, "permissions: ");
    for (const flag of Object.keys(flags)) assertMatch(stdout, new RegExp(`^  --${flag}( |$)`, "m"));
  }
});

Deno.test("--version tells Whet's version and Deno's", async () => {
  const { code, stdout } = await whet(["--version"], { permissions: [] });
  assertEquals([code, stdout], [0, `whet ${VERSION} (deno ${Deno.version.deno})\n`]);
});

Deno.test("wrong usage is one line and exit status 2, before anything is loaded", async () => {
  const train = ["train", "--model", "/nowhere", "--data", "/nowhere", "--out", "/nowhere"];
  const cases: [string[], RegExp][] = [
    [["tarin"], /^whet: unknown command tarin; there are train, generate, .*; see whet --help\n$/],
    [["constructor", "--help"], /^whet: unknown command constructor; /],
    [["--json"], /^whet: unknown command --json; /],
    [["train", "--model", MODEL], /^whet: --data is missing: .*; whet train --help lists the flags\n$/],
    [[...train, "--steps", "-1"], /^whet: --steps: expected a whole number of at least 1, got "-1"; /],
    [[...train, "--batch-size", "1.5"], /^whet: --batch-size: expected a whole number/],
    [[...train, "--lr", "abc"], /^whet: --lr: expected a number above 0, got "abc"; /],
    [[...train, "--rank", "0"], /^whet: --rank: expected a whole number of at least 1/],
    [[...train, "--backend", "cuda"], /^whet: --backend: expected auto, webgpu, wasm, got "cuda"; /],
    [[...train, "--steps", "5", "--epochs", "1"], /^whet: --steps, --epochs: give one of them, not both; /],
    [[...train, "--eval-every", "5"], /^whet: --eval-every: say by --eval-data what to evaluate on; /],
    [[...train, "--method", "full", "--weights", "q8"], /^whet: --weights q8: --method full trains f32 /],
    [["generate", "--model", MODEL, "--prompt", ""], /^whet: --prompt: expected P after it; /],
    [["generate", "--model", MODEL, "--prompt", "x", "--top-p", "1.5"], /^whet: --top-p: expected a number/],
    [["score", "--data", "/nowhere"], /^whet: --model is missing: /],
  ];
  await Promise.all(cases.map(([args, message]) => refused(args, { code: 2, message })));
  const { code, stdout } = await whet([]);
  assertEquals(code, 2);
  assertStringIncludes(stdout, "commands:");
});

Deno.test("generate streams text; with --json one object; --quiet says nothing more", async () => {
  const args = [
    "generate",
    "--model",
    MODEL,
    ...wasm,
    "--prompt",
    "Hello",
    "--max-tokens",
    "12",
    "--seed",
    "3",
  ];
  const [plain, quiet, again, object] = await Promise.all([
    whet(args),
    whet([...args, "--quiet"]),
    whet([...args, "--quiet"], { permissions: [`--allow-read=${MODEL}`] }),
    whet([...args, "--json"]),
  ]);
  assertEquals([plain.code, quiet.code, quiet.stderr], [0, 0, ""]);
  assertMatch(plain.stderr, /0\.0352 M parameters .*, f32, on SIMD WebAssembly/);
  assertMatch(plain.stderr, /12 tokens, [\d.]+ tokens\/s, ended by length/);
  assertEquals(quiet.stdout, plain.stdout);
  assertEquals(again, quiet);
  const result = json(object);
  assertEquals(`${result.text}\n`, plain.stdout);
  assertEquals([result.tokens, result.finish_reason], [12, "length"]);
  assert((result.tokens_per_second as number) > 0);
});

Deno.test("greedy generation with an adapter is that of the merged model; score agrees", () =>
  inTempDir(async (directory) => {
    const adapter = fixture("d16/lora/attn"), out = `${directory}/merged`;
    const data = await writeExchanges(`${directory}/data.jsonl`);
    const merged = await whet([
      "merge",
      "--model",
      MODEL,
      "--adapter",
      adapter,
      "--out",
      out,
      ...wasm,
      "--json",
    ]);
    assertEquals(json(merged), { out });
    const files = [...Deno.readDirSync(out)].map(({ name }) => name);
    for (const file of ["config.json", "merges.txt", "model.safetensors", "vocab.json"]) {
      assert(files.includes(file), file);
    }
    const greedy = ["--prompt", "abc", "--temperature", "0", "--max-tokens", "20", "--json", ...wasm];
    const score = ["--data", data, "--json", ...wasm];
    const [attached, whole, base, scored, scoredMerged, scoredBase] = (await Promise.all([
      whet(["generate", "--model", MODEL, "--adapter", adapter, ...greedy]),
      whet(["generate", "--model", out, ...greedy]),
      whet(["generate", "--model", MODEL, ...greedy]),
      whet(["score", "--model", MODEL, "--adapter", adapter, ...score]),
      whet(["score", "--model", out, ...score]),
      whet(["score", "--model", MODEL, ...score]),
    ])).map(json);
    assertEquals(attached.text, whole.text);
    assert(attached.text !== base.text, "the adapter changes nothing");
    const loss = scored.loss as number;
    assert(Math.abs(loss - (scoredMerged.loss as number)) < 1e-4);
    assert(Math.abs(loss - (scoredBase.loss as number)) > 1e-3);
    assert(Math.abs((scored.perplexity as number) - Math.exp(loss)) < 1e-6 * Math.exp(loss));
    assertEquals(scored.tokens, scoredBase.tokens);
  }));

Deno.test("devices tells the backends, and which one auto picks", async () => {
  const [object, plain] = await Promise.all([
    whet(["devices", "--json"], { permissions: [] }),
    whet(["devices"], { permissions: [] }),
  ]);
  const result = json(object);
  assertMatch(String(result.auto), /^(webgpu|wasm)$/);
  assert("webgpu" in result && result.wasm !== null);
  assertMatch(plain.stdout, /^auto {4}(webgpu|wasm): .*\n/);
});

Deno.test("chat answers each line of standard input until an empty one", async () => {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "-A", new URL("../mod.ts", import.meta.url).pathname, "chat"].concat(
      ["--model", MODEL, ...wasm, "--max-tokens", "3", "--seed", "1", "--json"],
    ),
    ...{ stdin: "piped", stdout: "piped", stderr: "piped" },
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode("a\r\nb\n\nnever read\n"));
  await writer.close();
  const { code, stdout } = await child.output();
  assertEquals(code, 0);
  const { turns } = JSON.parse(new TextDecoder().decode(stdout));
  assertEquals(turns.at(-2), { role: "human", text: "b" });
  assertEquals(turns.at(-1).role, "assistant");
});

Deno.test({
  name: "a reader that goes away ends a command in peace; a full disk is told",
  ignore: Deno.build.os === "windows",
  async fn() {
    const program = new URL("../mod.ts", import.meta.url).pathname;
    const shell = async (script: string) => {
      const { code, stdout, stderr } = await new Deno.Command("bash", {
        args: ["-c", script, Deno.execPath(), "run", "--no-prompt", "-A", program],
        ...{ stdout: "piped", stderr: "piped" },
      }).output();
      return [code, new TextDecoder().decode(stdout), new TextDecoder().decode(stderr)];
    };
    const generate = `generate --quiet --model '${MODEL}' --backend wasm --prompt abc --max-tokens 30`;
    const [help, generated, noErrors, full] = await Promise.all([
      shell('"$0" "$@" train --help | true; echo ${PIPESTATUS[0]}'),
      shell(`"$0" "$@" ${generate} | true; echo \${PIPESTATUS[0]}`),
      shell(`"$0" "$@" tarin 2>&-; echo $?`),
      Deno.build.os === "linux" ? shell(`"$0" "$@" ${generate} >/dev/full`) : null,
    ]);
    assertEquals(help, [0, "0\n", ""]);
    assertEquals(generated, [0, "0\n", ""]);
    assertEquals(noErrors, [0, "2\n", ""]);
    const told = "whet: cannot write standard output: the disk is full; make room or choose another disk\n";
    if (full) assertEquals(full, [1, "", told]);
  },
});
