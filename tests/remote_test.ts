import { assertEquals, assertStringIncludes } from "@std/assert";
import { GPT2, study, type StudyResult } from "../mod.ts";
import { serveModule } from "./support/module_server.ts";
import { Sandbox } from "./support/sandbox.ts";

const PROMPT = "\n\nHuman: Hi\n\nAssistant:";

/** The strict instruction set gives the same bits wherever the module comes from. */
const LOAD = { backend: "wasm", instructionSet: "strict" } as const;
const STUDY = { training: { steps: 3, learningRate: 1e-3 }, questions: 1, maxTokens: 8 };

/** All of a study but the time that it took. */
function figures({ lossBase, lossTuned, points, evalPoints, answers }: StudyResult) {
  return { lossBase, lossTuned, points, evalPoints, answers };
}

let reference: ReturnType<typeof figures> | undefined;

async function localStudy(): Promise<ReturnType<typeof figures>> {
  if (reference) return reference;
  using model = await GPT2.load("nano", LOAD);
  const { result, lora } = await study({ model, ...STUDY });
  lora[Symbol.dispose]();
  return reference = figures(result);
}

async function localText(maxTokens: number): Promise<string> {
  using model = await GPT2.load("nano", LOAD);
  let text = "";
  for await (const chunk of model.generate(PROMPT, { maxTokens, seed: 1 })) text += chunk.text;
  return text;
}

Deno.test("a script that imports the module over http studies and generates as a local one does, with --allow-import alone", async () => {
  await using server = serveModule("application/typescript; charset=utf-8");
  await using sandbox = new Sandbox();
  const script = sandbox.write(
    "script.ts",
    `import { GPT2, study } from ${JSON.stringify(server.module)};

    using model = await GPT2.load("nano", ${JSON.stringify(LOAD)});
    const chunks = [];
    const options = { maxTokens: 8, seed: 1 };
    for await (const { text } of model.generate(${JSON.stringify(PROMPT)}, options)) chunks.push(text);
    const { result, report } = await study({ model, ...${JSON.stringify(STUDY)} });
    console.log(JSON.stringify({ chunks, result, report }));`,
  );
  const { code, stdout, stderr } = await sandbox.run(
    ...["run", "--no-prompt", `--allow-import=${server.host}`, script],
  );
  assertEquals(code, 0, stderr);
  const { chunks, result, report } = JSON.parse(stdout);
  assertEquals(chunks.length, 8);
  assertEquals(chunks.join(""), await localText(8));
  assertEquals(figures(result), await localStudy());
  assertStringIncludes(report, "<!DOCTYPE html>");
});

Deno.test("the command run from a raw file's address studies, and says that without --allow-write there is no report", async () => {
  await using server = serveModule("text/plain; charset=utf-8");
  await using sandbox = new Sandbox();
  const { code, stdout, stderr } = await sandbox.run(
    ...["run", "--no-prompt", `--allow-import=${server.host}`, server.module, "study", "--json"],
    ...[
      "--steps",
      "3",
      "--questions",
      "1",
      "--max-tokens",
      "8",
      "--lr",
      "1e-3",
      "--backend",
      "wasm",
      "--strict",
    ],
  );
  assertEquals(code, 0, stderr);
  const { loss_base, loss_tuned, report } = JSON.parse(stdout);
  const { lossBase, lossTuned } = await localStudy();
  assertEquals({ loss_base, loss_tuned, report }, {
    loss_base: lossBase,
    loss_tuned: lossTuned,
    report: null,
  });
  assertStringIncludes(stderr, "no report was written: it needs --allow-write");
});

Deno.test("the command run from an address generates what the local module does", async () => {
  await using server = serveModule("application/typescript");
  await using sandbox = new Sandbox();
  const { code, stdout, stderr } = await sandbox.run(
    ...[
      "run",
      "--no-prompt",
      `--allow-import=${server.host}`,
      server.module,
      "generate",
      "--json",
      "--quiet",
    ],
    ...["--model", "nano", "--prompt", PROMPT, "--max-tokens", "5", "--seed", "1"],
    ...["--backend", "wasm", "--strict"],
  );
  assertEquals(code, 0, stderr);
  const { text, tokens, finish_reason } = JSON.parse(stdout);
  assertEquals({ text, tokens, finish_reason }, {
    text: await localText(5),
    tokens: 5,
    finish_reason: "length",
  });
});
