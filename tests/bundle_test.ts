import { assertEquals } from "@std/assert";
import { GPT2 } from "../mod.ts";
import { Sandbox } from "./support/sandbox.ts";

const PROMPT = "\n\nHuman: Hi\n\nAssistant:";

/** Bundles one of the repository's files into the sandbox, which has no registry: what is in the file is all there is. */
async function bundle(sandbox: Sandbox, file: string): Promise<string> {
  const path = `${sandbox.directory}/bundle.js`;
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["bundle", "--quiet", "--frozen", "--output", path, new URL(`../${file}`, import.meta.url).href],
    cwd: new URL("../", import.meta.url),
  }).output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  return path;
}

async function local(maxTokens: number): Promise<string> {
  using model = await GPT2.load("nano", { backend: "wasm" });
  let text = "";
  for await (const chunk of model.generate(PROMPT, { maxTokens, seed: 1 })) text += chunk.text;
  return text;
}

Deno.test("the library in one file generates with nano, trains it and knows GPT-2's vocabulary, with no permission", async () => {
  await using sandbox = new Sandbox();
  await bundle(sandbox, "mod.ts");
  const script = sandbox.write(
    "script.js",
    `import { GPT2, Lora, train } from "./bundle.js";

    using model = await GPT2.load("nano", { backend: "wasm" });
    let text = "", steps = 0;
    const options = { maxTokens: 8, seed: 1 };
    for await (const chunk of model.generate(${JSON.stringify(PROMPT)}, options)) text += chunk.text;
    const lora = Lora.create(model, { rank: 1 });
    for await (const _ of train(model, [{ text: "Hello" }], { lora, steps: 2 })) steps++;
    using random = await GPT2.random({ n_layer: 1, n_embd: 8, n_head: 1, n_positions: 8 }, { backend: "wasm" });
    console.log(JSON.stringify({ text, steps, ids: random.tokenizer.encode("Hello world") }));`,
  );
  const { code, stdout, stderr } = await sandbox.run("run", "--no-prompt", script);
  assertEquals(code, 0, stderr);
  assertEquals(JSON.parse(stdout), { text: await local(8), steps: 2, ids: [15496, 995] });
});

Deno.test("the library in one file is the command, too", async () => {
  await using sandbox = new Sandbox();
  const path = await bundle(sandbox, "mod.ts");
  const { code, stdout, stderr } = await sandbox.run(
    ...["run", "--no-prompt", path, "generate", "--model", "nano", "--prompt", PROMPT, "--json", "--quiet"],
    ...["--max-tokens", "8", "--seed", "1", "--backend", "wasm"],
  );
  assertEquals(code, 0, stderr);
  assertEquals(JSON.parse(stdout).text, await local(8));
});

Deno.test("the edge function in one file, packages and all, streams under deno serve, with no permission", async () => {
  await using sandbox = new Sandbox();
  await using server = await sandbox.serve(await bundle(sandbox, "examples/edge.ts"));
  const response = await fetch(`${server.url}v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: PROMPT, max_tokens: 8, temperature: 0, stream: true }),
  });
  assertEquals(response.status, 200);
  const events = (await response.text()).trim().split("\n\n");
  assertEquals([events.length, events.at(-1)], [9, "data: [DONE]"]);
});
