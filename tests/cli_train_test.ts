/**
 * `whet train` from outside: what it writes, and that no interruption changes what comes out.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import {
  begin,
  inTempDir,
  MODEL,
  readMetrics,
  refused,
  result,
  whet,
  writeExchanges,
} from "./support/cli.ts";

const posix = Deno.build.os !== "windows";

/** A train command on the tiny model. */
function train(data: string, out: string, ...flags: string[]): string[] {
  return ["train", "--model", MODEL, "--backend", "wasm", "--data", data, "--out", out, ...flags];
}

async function exists(path: string): Promise<boolean> {
  return await Deno.lstat(path).then(() => true, () => false);
}

/** Kills a command as soon as a condition holds; whether it was still alive then. */
async function killWhen(args: string[], signal: Deno.Signal, ready: () => Promise<boolean>): Promise<number> {
  const child = begin(args);
  let ended = false;
  child.status.then(() => ended = true);
  while (!ended && !await ready()) await new Promise((resolve) => setTimeout(resolve, 3));
  if (!ended) child.kill(signal);
  return (await child.status).code;
}

/** Whether so many steps stand in metrics.jsonl. */
function steps(out: string, least: number): () => Promise<boolean> {
  return async () => {
    const text = await Deno.readTextFile(`${out}/metrics.jsonl`).catch(() => "");
    return text.split("\n").length > least;
  };
}

Deno.test("train writes adapter, metrics and picture, and prints one object", () =>
  inTempDir(async (directory) => {
    const data = await writeExchanges(`${directory}/data.jsonl`), out = `${directory}/new/out`;
    const flags = ["--steps", "6", "--seq-len", "40", "--batch-size", "2", "--lr", "1e-2", "--rank", "4"];
    flags.push("--targets", "c_attn,mlp.c_proj", "--eval-data", data, "--eval-every", "4", "--seed", "7");
    const { code, stdout, stderr } = await whet(train(data, out, ...flags, "--json"));
    assertEquals(code, 0, stderr);
    assertMatch(stdout, /^\{.*\}\n$/);
    const printed = JSON.parse(stdout);
    const lines = await readMetrics(out);
    assertEquals(lines.map(({ step }) => step), [1, 2, 3, 4, 5, 6]);
    for (const line of lines) {
      const fields = ["step", "loss", "learning_rate", "grad_norm", "tokens", "tokens_per_second"];
      for (const field of fields) assert(Number.isFinite(line[field]) && line[field] > 0, field);
    }
    assertEquals(lines.filter(({ eval_loss }) => eval_loss > 0).map(({ step }) => step), [4, 6]);
    assertEquals(
      [printed.steps, printed.loss_first, printed.loss_last, printed.eval_loss, printed.out],
      [6, lines[0].loss, lines[5].loss, lines[5].eval_loss, out],
    );
    assert(printed.tokens_per_second > 0 && printed.parameters > 0);
    const config = JSON.parse(await Deno.readTextFile(`${out}/adapter_config.json`));
    assertEquals([config.r, config.peft_type, config.target_modules.sort()], [
      4,
      "LORA",
      ["c_attn", "mlp.c_proj"],
    ]);
    assertMatch(await Deno.readTextFile(`${out}/loss.svg`), /^<svg [\s\S]*<\/svg>\s*$/);
    for (const told of ["training ", "train  100 %", `adapter, metrics.jsonl and loss.svg are in ${out}`]) {
      assertStringIncludes(stderr, told);
    }
    assertEquals(
      [...Deno.readDirSync(out)].map(({ name }) => name).sort(),
      ["adapter_config.json", "adapter_model.safetensors", "checkpoint", "loss.svg", "metrics.jsonl"],
    );

    // The same again, of fewer steps: nothing of the old run stays but its directory.
    const again = await whet(train(data, out, "--steps", "2", "--seq-len", "40", "--quiet"));
    assertEquals(again, { code: 0, stdout: "", stderr: "" });
    assertEquals((await readMetrics(out)).map(({ step }) => step), [1, 2]);
  }));

Deno.test("train --method full writes a model that generates", () =>
  inTempDir(async (directory) => {
    const data = `${directory}/data.jsonl`, out = `${directory}/out`;
    await Deno.writeTextFile(data, '{"prompt":"ab","response":"cdef"}\n');
    const flags = ["--method", "full", "--steps", "60", "--lr", "1e-2", "--seq-len", "40", "--json"];
    const { code, stdout, stderr } = await whet(train(data, out, ...flags));
    assertEquals(code, 0, stderr);
    const printed = JSON.parse(stdout);
    assert(printed.loss_last < 0.1 && printed.loss_first > 4, stdout);
    const generated = await whet([
      ...["generate", "--model", out, "--backend", "wasm", "--prompt", "ab", "--temperature", "0", "--json"],
    ]);
    const { text, finish_reason } = JSON.parse(generated.stdout);
    assertEquals([text, finish_reason], ["cdef", "stop"]);
  }));

Deno.test({
  name: "killed time and again, train --resume ends as if nothing had happened",
  ignore: !posix,
  fn: () =>
    inTempDir(async (directory) => {
      const data = await writeExchanges(`${directory}/data.jsonl`, 40);
      const flags = ["--steps", "400", "--seq-len", "40", "--batch-size", "2", "--checkpoint-every", "60"];
      flags.push("--dropout", "0.1", "--accumulate", "2", "--lr", "1e-3", "--quiet");
      const whole = `${directory}/whole`, out = `${directory}/out`;
      const checkpoint = `${out}/checkpoint/checkpoint.safetensors`;
      const uninterrupted = whet(train(data, whole, ...flags));
      const written = async () => (await Deno.stat(checkpoint).catch(() => null))?.mtime?.getTime() ?? 0;
      const moments: (() => Promise<boolean>)[] = [
        () => exists(out), // before the first step
        steps(out, 10), // before the first checkpoint
        () => exists(checkpoint), // just after it
        steps(out, 170), // between two
      ];
      let last = 0;
      moments.push(async () => last !== 0 && await written() !== last); // just after a later one
      let killed = 0;
      for (const moment of moments) {
        last = await written();
        const code = await killWhen(train(data, out, ...flags, "--resume"), "SIGKILL", moment);
        if (code !== 0) killed++;
      }
      assert(killed >= 4, `only ${killed} kills came in time`);
      const { code, stderr } = await whet(train(data, out, ...flags, "--resume"));
      assertEquals([code, stderr], [0, ""]);
      assertEquals((await uninterrupted).code, 0);
      const expected = await result(whole);
      assertEquals(expected.steps.length, 400);
      assertEquals(await result(out), expected);
      // After its end there is nothing left to do, and nothing changes.
      await Deno.remove(`${out}/adapter_model.safetensors`);
      const after = await whet(train(data, out, ...flags, "--resume", "--json"));
      assertEquals([after.code, JSON.parse(after.stdout).steps], [0, 400]);
      assertEquals(await result(out), expected);
    }),
});

Deno.test({
  name: "Ctrl-C saves a checkpoint and exits with 130; --resume goes on from there",
  ignore: !posix,
  fn: () =>
    inTempDir(async (directory) => {
      const data = await writeExchanges(`${directory}/data.jsonl`, 40);
      const flags = ["--epochs", "45", "--seq-len", "40", "--batch-size", "2", "--no-packing", "--quiet"];
      const whole = `${directory}/whole`, out = `${directory}/out`;
      const uninterrupted = whet(train(data, whole, ...flags));
      for (const [signal, least] of [["SIGINT", 20], ["SIGTERM", 300]] as const) {
        assertEquals(await killWhen(train(data, out, ...flags, "--resume"), signal, steps(out, least)), 130);
        const interrupted = (await readMetrics(out)).length;
        assert(interrupted >= least && interrupted < 900, `${interrupted} steps`);
        assert(await exists(`${out}/checkpoint/checkpoint.safetensors`));
        assertEquals(await exists(`${out}/adapter_config.json`), false);
      }
      const { code, stderr } = await whet(train(data, out, ...flags, "--resume"));
      assertEquals([code, stderr], [0, ""]);
      assertEquals((await uninterrupted).code, 0);
      assertEquals(await result(out), await result(whole));
    }),
});

Deno.test("--resume with other settings or a damaged checkpoint is refused and changes nothing", () =>
  inTempDir(async (directory) => {
    const data = await writeExchanges(`${directory}/data.jsonl`), out = `${directory}/out`;
    const other = await writeExchanges(`${directory}/other.jsonl`, 8);
    const flags = ["--seq-len", "40", "--quiet", "--resume"];
    assertEquals((await whet(train(data, out, ...flags, "--steps", "3"))).code, 0);
    const before = await result(out);
    const cases: [string[], RegExp][] = [
      [
        train(data, out, ...flags, "--steps", "3", "--lr", "1e-3"),
        /of a run with learningRate 0\.0002, this one/,
      ],
      [
        train(data, out, ...flags, "--steps", "3", "--rank", "2"),
        /of a run with lora\.rank 8, this one has 2;/,
      ],
      [train(data, out, ...flags, "--steps", "4"), /of a run with steps 3, this one has 4;/],
      [
        train(data, out, ...flags, "--steps", "3", "--method", "full"),
        /of a run with method "lora", this one/,
      ],
      [train(other, out, ...flags, "--steps", "3"), /of a run with data "9 examples .*", this one has "8 /],
    ];
    await Promise.all(cases.map(([args, message]) => refused(args, { code: 1, message })));
    const checkpoint = `${out}/checkpoint/checkpoint.safetensors`;
    await Deno.truncate(checkpoint, 5000);
    const message = /checkpoint\.safetensors: truncated: .*; remove it to begin anew\n$/;
    await refused(train(data, out, ...flags, "--steps", "3"), { code: 1, message });
    assertEquals(await result(out), before);
  }));

Deno.test("a learning rate beyond all reason ends with exit status 1 and the step's number", () =>
  inTempDir(async (directory) => {
    const data = await writeExchanges(`${directory}/data.jsonl`), out = `${directory}/out`;
    const flags = ["--steps", "9", "--seq-len", "40", "--quiet", "--lr", "1e30", "--warmup-steps", "1"];
    const message =
      /^whet: step 2: the weights are not a number any more; the checkpoint of step 1 in .* is whole; /;
    await refused(train(data, out, ...flags, "--checkpoint-every", "1"), { code: 1, message });
    assertEquals((await readMetrics(out)).length, 2);
    assertEquals(await exists(`${out}/adapter_model.safetensors`), false);
  }));
