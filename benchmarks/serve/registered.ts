/**
 * Many adapters registered, fewer in memory.
 *
 * @module
 */
import { GPT2, Lora } from "../../mod.ts";
import { type Question, Site } from "./site.ts";

/** Adapters that are under way at once. */
const TOGETHER = 16;
/** Every so many adapters' answers are held to the library's own. */
const CHECKED = 50;

/**
 * Asks each adapter alone, then all in another order and many at a time; every tenth answer of the first kind is held to
 * what the library generates with the adapter attached.
 *
 * @param model The model's directory.
 * @param directory One with adapters a0, a1, …, all of one size.
 * @param registered How many there are.
 * @param held How many may be in memory.
 */
export async function registered(model: string, directory: string, registered: number, held: number) {
  const bytes = await adapterBytes(model, directory);
  const budget = Math.ceil(held * bytes / 2 ** 20);
  await using site = await Site.start(model, "--adapters", directory, "--adapter-mb", `${budget}`);
  const question = (i: number): Question => ({ model: `a${i}`, seed: 1, max_tokens: 3 }); // All the same but for the adapter.
  const alone: string[] = [];
  for (let i = 0; i < registered; i++) alone.push((await site.ask(question(i))).text);
  let wrong = await countWrong(model, directory, alone, question);

  const order = Array.from({ length: registered }, (_, i) => (i * 7919) % registered); // A prime: all, far apart.
  let next = 0, most = 0, loaded = 0;
  await Promise.all(Array.from({ length: TOGETHER }, async () => {
    while (next < order.length) {
      const i = order[next++];
      if ((await site.ask(question(i))).text !== alone[i]) wrong++;
      most = Math.max(most, await site.metric("whet_adapters_bytes"));
      loaded = Math.max(loaded, await site.metric("whet_adapters_loaded"));
    }
  }));
  return {
    answers: 2 * registered,
    different: new Set(alone).size,
    wrong,
    loaded,
    mib: most / 2 ** 20,
    budget,
    evictions: await site.metric("whet_adapter_evictions_total"),
  };
}

async function adapterBytes(model: string, directory: string): Promise<number> {
  using base = await GPT2.load(model, { backend: "wasm" });
  using lora = await Lora.load(`${directory}/a0`);
  lora.checkFits(base);
  return [...lora.modules.values()].reduce((sum, { A, B }) => sum + 4 * (A.length + B.length + 1), 0);
}

async function countWrong(
  model: string,
  directory: string,
  alone: readonly string[],
  question: (i: number) => Question,
): Promise<number> {
  using base = await GPT2.load(model, { backend: "wasm" });
  let wrong = 0;
  for (let i = 0; i < alone.length; i += CHECKED) {
    using lora = await Lora.load(`${directory}/a${i}`);
    base.attach(lora);
    const { seed, max_tokens: maxTokens } = question(i);
    const prompt = `\n\nHuman: Tell me story ${seed}.\n\nAssistant:`;
    let text = "";
    for await (const chunk of base.generate(prompt, { seed, maxTokens })) text += chunk.text;
    base.detach();
    if (text !== alone[i]) wrong++;
  }
  return wrong;
}
