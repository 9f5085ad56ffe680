/**
 * `whet study` from outside: what it writes, goes on with, refuses; and the preset, against a stand-in for the Hub.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { inTempDir, MODEL, refused, whet, writeExchanges } from "./support/cli.ts";
import { type HubRepo, HubServer } from "./support/hub_server.ts";

const QUICK = ["--backend", "wasm", "--steps", "3", "--questions", "2", "--max-tokens", "4"];
const JUDGE = new URL("./fixtures/deberta/", import.meta.url);

/** A study of the tiny model on a few exchanges. */
function study(data: string, out: string, ...flags: string[]): string[] {
  return ["study", "--model", MODEL, "--data", data, "--out", out, "--seq-len", "40", ...QUICK, ...flags];
}

async function listing(directory: string): Promise<string[]> {
  return (await Array.fromAsync(Deno.readDir(directory))).map(({ name }) => name).sort();
}

/** A tiny reward model in a directory. */
async function writeJudge(directory: string): Promise<string> {
  await Deno.mkdir(directory);
  for (const name of ["saved/config.json", "saved/model.safetensors", "tokenizer.json"]) {
    await Deno.copyFile(new URL(name, JUDGE), `${directory}/${name.split("/").at(-1)}`);
  }
  return directory;
}

Deno.test("study with a reward model: report, figures, pictures, adapter; again it only reads them", () =>
  inTempDir(async (directory) => {
    const data = await writeExchanges(`${directory}/data.jsonl`, 20), out = `${directory}/out`;
    const judge = await writeJudge(`${directory}/judge`);
    // A rate that changes the answers: their scores make a picture only where they differ.
    const args = study(data, out, "--lr", "0.3", "--reward-model", judge, "--json");
    const first = await whet(args);
    assertEquals(first.code, 0, first.stderr);
    const printed = JSON.parse(first.stdout);
    const { scores, answers, lossBase, lossTuned, points } = JSON.parse(
      await Deno.readTextFile(`${out}/study.json`),
    );
    assertEquals(
      [printed.loss_base, printed.loss_tuned, printed.score_base, printed.score_tuned, printed.report],
      [lossBase, lossTuned, scores.meanBase, scores.meanTuned, `${out}/report.html`],
    );
    assertEquals([points.length, answers.length, scores.judge], [3, 2, `${directory}/judge`]);
    assert(Number.isFinite(answers[0].scoreBase) && Number.isFinite(printed.score_tuned));
    assertEquals(await listing(out), [
      ...["adapter", "loss-means.svg", "loss.svg", "metrics.jsonl", "parts", "report.html", "scores.svg"],
      "study.json",
    ]);
    assertMatch(await Deno.readTextFile(`${out}/report.html`), /<h2 id="scores">Reward scores<\/h2>/);
    const again = await whet(args);
    assertEquals([again.code, again.stdout], [0, first.stdout]);
    assertStringIncludes(again.stderr, `going on with the study in ${out}`);
    assert(!again.stderr.includes("train  100 %"), again.stderr);

    const message =
      /^whet: \S+out holds a study with training\.steps 3, this one has 4; use the same settings/;
    await refused([...args, "--steps", "4", "--quiet"].toSpliced(args.indexOf("--steps"), 2), {
      code: 1,
      message,
    });
    const anew = await whet([...study(data, out, "--overwrite", "--seed", "3", "--quiet", "--json")]);
    assertEquals([anew.code, anew.stderr, JSON.parse(anew.stdout).score_base], [0, "", null]);
    assertEquals((await listing(out)).includes("scores.svg"), false);
  }));

Deno.test("study --adapter compares what was trained before, and takes no flag of a training", () =>
  inTempDir(async (directory) => {
    const data = await writeExchanges(`${directory}/data.jsonl`, 20), out = `${directory}/out`;
    const trained = await whet([...study(data, out, "--json")]);
    assertEquals(trained.code, 0, trained.stderr);
    assertStringIncludes(trained.stderr, "no reward model was given");
    const compare = study(data, `${directory}/compared`, "--adapter", `${out}/adapter`, "--json");
    const message = /^whet: --adapter, --steps: with an adapter nothing is trained; leave one of them out; /;
    await refused(compare, { code: 2, message });
    const { code, stdout, stderr } = await whet(compare.toSpliced(compare.indexOf("--steps"), 2));
    assertEquals(code, 0, stderr);
    const [before, after] = [JSON.parse(trained.stdout), JSON.parse(stdout)];
    assertEquals([after.loss_base, after.loss_tuned], [before.loss_base, before.loss_tuned]);
    assertEquals(await listing(`${directory}/compared`), ["parts", "report.html", "study.json"]);
    await refused(study(data, out, "--reward-weights", "q8"), {
      code: 2,
      message: /--reward-weights: say by /,
    });
    const wrong = ["--adapter", `${directory}/nowhere`, "--quiet"];
    await refused(["study", "--out", `${directory}/none`, ...wrong], { code: 1, message: /nowhere/ });
  }));

Deno.test("without the permissions that a report needs there is none, and a directory that is named is refused at once", () =>
  inTempDir(async (directory) => {
    const args = ["study", ...QUICK, "--json"];
    const { code, stdout, stderr } = await whet(args, { permissions: [], cwd: directory });
    assertEquals([code, JSON.parse(stdout).report], [0, null]);
    assertStringIncludes(stderr, "needs --allow-write=whet-study and --allow-read=whet-study");
    for (const [permissions, message] of [[[], /--allow-write=/], [["write"], /--allow-read=/]] as const) {
      await refused([...args, "--out", directory, "--quiet"], {
        permissions: permissions.map((name) => `--allow-${name}=${directory}`),
        ...{ code: 1, message },
      });
    }
  }));

/** The preset's model and data, small, on a Hub of this machine. */
async function hub(): Promise<HubServer> {
  const files: Record<string, Uint8Array> = {};
  for (const name of await listing(MODEL)) files[name] = await Deno.readFile(`${MODEL}/${name}`);
  const turn = (i: number) => `\n\nHuman: Q${i}?\n\nAssistant: yes`;
  const lines = (from: number, count: number) =>
    Array.from({ length: count }, (_, i) => JSON.stringify({ chosen: turn(from + i), rejected: turn(0) }))
      .join("\n");
  const pack = async (text: string) =>
    new Uint8Array(
      await new Response(new Blob([text]).stream().pipeThrough(new CompressionStream("gzip"))).arrayBuffer(),
    );
  const repos: HubRepo[] = [
    { name: "openai-community/gpt2", commit: "1".repeat(40), files, lfs: ["model.safetensors"] },
    {
      type: "dataset",
      name: "Anthropic/hh-rlhf",
      commit: "2".repeat(40),
      files: {
        "helpful-base/train.jsonl.gz": await pack(lines(1, 9)),
        "helpful-base/test.jsonl.gz": await pack(lines(20, 3)),
        "harmless-base/train.jsonl.gz": await pack("this is not JSON"),
      },
    },
  ];
  return new HubServer(repos);
}

Deno.test("--preset study takes model and data from the Hub, explicit flags override it, the report says what is known", () =>
  inTempDir(async (directory) => {
    await using server = await hub();
    const env = {
      HF_ENDPOINT: server.endpoint,
      HF_HOME: `${directory}/hub`,
      HF_TOKEN: "",
      HF_HUB_OFFLINE: "",
    };
    const out = `${directory}/out`;
    const flags = ["--steps", "4", "--seq-len", "40", "--max-tokens", "4", "--backend", "wasm", "--json"];
    const args = ["study", "--preset", "study", "--out", out, ...flags];
    const none = await whet([...args, "--reward-model", "none"], { env });
    assertEquals(none.code, 0, none.stderr);
    const { settings, comparison, answers, model, data } = JSON.parse(
      await Deno.readTextFile(`${out}/study.json`),
    );
    assertEquals([model, data], ["openai-community/gpt2", "9 examples, 3 others held out"]);
    assertEquals(answers.length, 3);
    assertStringIncludes(none.stderr, "only 3 of 50 questions: ");
    const { steps, optimizer, temperature, rank, packing, "batch size": batch } = settings;
    assertEquals([steps, optimizer, temperature, rank, packing, batch], [4, "Adam", 0.7, 8, "no", 1]);
    assertEquals(comparison.find(({ what }: { what: string }) => what === "steps"), {
      ...{ what: "steps", original: "about 60,000", here: "4" },
    });
    const report = await Deno.readTextFile(`${out}/report.html`);
    assertMatch(report, /<th scope="row">learning rate<\/th><td><i>not known; Whet’s choice<\/i><\/td>/);
    assertMatch(
      report,
      /<th scope="row">judge<\/th><td>OpenAssistant\/reward-model-deberta-v3-large-v2<\/td>/,
    );

    // Its reward model is not there: known before anything is computed.
    const fresh = args.with(args.indexOf(out), `${directory}/other`);
    const message =
      /^whet: OpenAssistant\/reward-model-deberta-v3-large-v2: .*; or leave the scores out: --reward-model none$/m;
    await refused([...fresh, "--quiet"], { code: 1, message, env });
    assertEquals((await listing(`${directory}/other/parts`)).filter((name) => name.includes("loss")), []);
  }));
