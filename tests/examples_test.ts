import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { GPT2, Lora } from "../mod.ts";
import { Sandbox } from "./support/sandbox.ts";

const TRAIN = new URL("../examples/train.ts", import.meta.url).href;
const SCORE = new URL("../examples/score.ts", import.meta.url).href;

Deno.test("examples/train.ts fine-tunes nano and keeps an adapter that answers the same when it is loaded", async () => {
  await using sandbox = new Sandbox();
  const question = "What do you sell?";
  const answer = " We sell green hats.";
  const lines = [
    { chosen: `\n\nHuman: ${question}\n\nAssistant:${answer}`, rejected: "\n\nHuman: Hi\n\nAssistant: No." },
    { prompt: "\n\nHuman: Hi\n\nAssistant:", response: " Hello!" },
  ];
  sandbox.write("chats.jsonl", lines.map((line) => JSON.stringify(line)).join("\n"));
  const { code, stdout, stderr } = await sandbox.run(
    ...["run", "--no-prompt", `--allow-read=${sandbox.directory}`, `--allow-write=${sandbox.directory}`],
    ...[TRAIN, "nano", "chats.jsonl", "adapter", question],
  );
  assertEquals(code, 0, stderr);
  const losses = [...stdout.matchAll(/^step \d+: loss (.*)$/gm)].map(([, loss]) => Number(loss));
  assertEquals(losses.length, 40);
  assert(losses.at(-1)! < losses[0] / 10, `${losses[0]} → ${losses.at(-1)}`);
  assertStringIncludes(stdout, `\n${answer}\n`);

  using model = await GPT2.load("nano");
  using lora = await Lora.load(`${sandbox.directory}/adapter`);
  model.attach(lora);
  let text = "";
  const options = { maxTokens: 64, temperature: 0, stop: "\n\nHuman:" };
  for await (const chunk of model.generate(`\n\nHuman: ${question}\n\nAssistant:`, options)) {
    text += chunk.text;
  }
  assertEquals(text, answer);
});

Deno.test("examples/score.ts, with no permission, finds what nano has read likelier than what it has not", async () => {
  await using sandbox = new Sandbox();
  const sentences = ["The cat says meow.", "The cat says xyzzy.", "<|endoftext|>"];
  const { code, stdout, stderr } = await sandbox.run("run", "--no-prompt", SCORE, "nano", ...sentences);
  assertEquals(code, 0, stderr);
  const lines = stdout.trimEnd().split("\n");
  assertEquals(lines.length, 3);
  const [likely, unlikely] = lines.map((line) => Number(line.split("  ")[0]));
  assert(likely > 1 && likely < unlikely / 2, `${likely}, ${unlikely}`);
  assertStringIncludes(lines[1], "  The cat says xyzzy.  ");
});

Deno.test("examples say how they are used", async () => {
  await using sandbox = new Sandbox();
  for (const example of [TRAIN, SCORE]) {
    const { code, stderr } = await sandbox.run("run", "--no-prompt", example);
    assertEquals(code, 1);
    assertStringIncludes(stderr, "usage: ");
  }
});
